package dev.culebra;

import dev.culebra.bindings.generated.culebra_h;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * GPU code that is no operator of this library: a cubin, a fatbin or PTX, from a file, from memory, or compiled from CUDA
 * C++ here and now. Belongs to one {@link Device} of the cuda backend, which closes it at the latest. The same image is
 * loaded once on a device, however often it is asked for. Can be used by several threads.
 */
public final class CudaModule implements AutoCloseable {
    private final Device device;
    private final LoadedModule loaded;
    private final String what;
    private volatile boolean closed;

    private CudaModule(Device device, LoadedModule loaded, String what) {
        this.device = device;
        this.loaded = loaded;
        this.what = what;
    }

    /**
     * Loads a file: a cubin, a fatbin, or PTX, which the driver compiles.
     *
     * @throws IOException if the file cannot be read
     * @throws ArgumentException if it is no such image, was cut short, or its PTX does not compile; the message has the
     *     driver's log
     * @throws UnsupportedException if it has no code for this device, or the device is not of the cuda backend
     */
    public static CudaModule load(Device device, Path file) throws IOException {
        return load(device, Files.readAllBytes(file), file.toString());
    }

    /** As {@link #load(Device, Path)}, from memory. */
    public static CudaModule load(Device device, byte[] image) {
        return load(device, image, "an image of " + image.length + " bytes");
    }

    static CudaModule load(Device device, byte[] image, String what) {
        return device.adopt(new CudaModule(device, device.modules().load(device, image), what));
    }

    /**
     * Compiles CUDA C++ for the device with NVRTC and loads the result. NVRTC is a library of the CUDA toolkit, found by
     * the system's loader. Declare kernels {@code extern "C"}: they are then found by their plain name.
     *
     * @param name what the log calls the source
     * @param options NVRTC's, for one {@code --use_fast_math} or {@code -DN=4}; the architecture is the device's
     * @throws ArgumentException if the source does not compile; the message has the log
     * @throws UnsupportedException if NVRTC is not found, or the device is not of the cuda backend
     */
    public static CudaModule compile(Device device, String source, String name, String... options) {
        try (var arena = Arena.ofConfined()) {
            var list = arena.allocate(ValueLayout.ADDRESS, Math.max(1, options.length));
            for (var i = 0; i < options.length; i++) {
                list.setAtIndex(ValueLayout.ADDRESS, i, arena.allocateFrom(options[i]));
            }
            var text = arena.allocateFrom(source);
            var title = arena.allocateFrom(name);
            var handle = device.with(open -> Natives.pointer(device.backend(), "module_compile", out ->
                    culebra_h.cul_module_compile(open, text, title, list, options.length, out)));
            return device.adopt(new CudaModule(device, new LoadedModule(device, handle, ""), name));
        }
    }

    /** The device that it is loaded on. */
    public Device device() {
        return device;
    }

    /** What the compiler said of the source, or the driver of the PTX; empty if nothing. */
    public String log() {
        return device.with(open -> {
            requireOpen("module_log");
            return culebra_h.cul_module_log(loaded.handle).getString(0);
        });
    }

    /**
     * A kernel of this module.
     *
     * @throws ArgumentException if there is none of that name; the message lists those that there are
     */
    public Kernel kernel(String name) {
        try (var arena = Arena.ofConfined()) {
            var text = arena.allocateFrom(name);
            return device.with(open -> {
                requireOpen("module_kernel");
                var kernel = Natives.pointer(device.backend(), "module_kernel",
                        out -> culebra_h.cul_module_kernel(loaded.handle, text, out));
                return new Kernel(this, kernel, name);
            });
        }
    }

    /** If it was closed. */
    public boolean isClosed() {
        return closed;
    }

    /** Unloads it once the launches queued so far have run; does not wait. Graphs that use its kernels end with it. */
    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        device.forget(this);
        loaded.close();
    }

    /** {@code module softmax.cubin on cuda:0}. */
    @Override
    public String toString() {
        return "module " + what + " on " + device;
    }

    /** Marks it as used by what {@code stream}, which is entered, queues next. */
    void use(Stream stream) {
        stream.use(loaded, what);
        requireOpen(stream.op());
    }

    private void requireOpen(String op) {
        if (closed) {
            throw new ClosedException(op, device.backend(), op + ": the " + this
                    + " was closed; keep it open as long as its kernels are used");
        }
    }
}
