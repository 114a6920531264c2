package dev.culebra;

import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;

/** A module on a device, of which every {@link CudaModule} of the same image is an owner. */
final class LoadedModule extends Uses {
    /** The modules of one device by the digest of their images. */
    static final class Cache {
        private final Map<String, LoadedModule> modules = new HashMap<>();

        /** The module of this image: the one that is there, or a new one. The caller is an owner. */
        synchronized LoadedModule load(Device device, byte[] image) {
            var key = digest(image);
            var known = modules.get(key);
            if (known != null && known.retain()) {
                return known;
            }
            var memory = Arena.ofAuto().allocateFrom(ValueLayout.JAVA_BYTE, image);
            var handle = device.with(open -> Natives.pointer(device.backend(), "module_load", out ->
                    culebra_h.cul_module_load(open, memory, image.length, out)));
            var loaded = new LoadedModule(device, handle, key);
            modules.put(key, loaded);
            return loaded;
        }

        private synchronized void forget(LoadedModule module) {
            modules.remove(module.key, module);
        }
    }

    final Device device;
    final MemorySegment handle;
    private final String key;

    /** A module that no other owner can find where {@code key} is empty. */
    LoadedModule(Device device, MemorySegment handle, String key) {
        this.device = device;
        this.handle = handle;
        this.key = key;
    }

    /** One owner less; the last one has it unloaded, when what was queued has run. */
    void close() {
        if (drop()) {
            device.modules().forget(this);
            Release.start(device, streams(), null, this);
        }
    }

    @Override
    public boolean queue(Stream stream) {
        return false;
    }

    @Override
    public void now() {
        device.free("module_unload", "a module", ignored -> culebra_h.cul_module_unload(handle));
    }

    private static String digest(byte[] image) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(image));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java platform has it
        }
    }
}
