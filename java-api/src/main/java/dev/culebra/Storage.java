package dev.culebra;

import dev.culebra.bindings.generated.culebra_h;
import dev.culebra.bindings.Native;
import dev.culebra.internal.GiveBacks;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** A piece of memory that tensors look at: of the device, pinned on the host, or somebody else's. */
final class Storage extends Uses {
    private enum Kind {
        DEVICE,
        PINNED,
        BORROWED,
        FOREIGN
    }

    final Device device;
    final MemorySegment address;
    final long bytes;
    private final Kind kind;

    /** Borrowed memory, held so that it stays reachable; pinned memory as Java sees it. */
    private final @Nullable MemorySegment host;

    private final @Nullable Arena arena;

    /** Gives foreign memory back to its owner. */
    private final @Nullable Runnable owner;

    private final boolean readOnly;

    private Storage(
            Device device, Kind kind, MemorySegment address, long bytes, @Nullable MemorySegment host,
                    @Nullable Arena arena, @Nullable Runnable owner, boolean readOnly) {
        this.device = device;
        this.kind = kind;
        this.address = address;
        this.bytes = bytes;
        this.host = host;
        this.arena = arena;
        this.owner = owner;
        this.readOnly = readOnly;
    }

    /** Fresh device memory. */
    static Storage allocate(Device device, long bytes) {
        return new Storage(device, Kind.DEVICE, device.allocate(bytes), bytes, null, null, null, false);
    }

    /** Fresh pinned host memory; {@link #host} is closed to Java when {@link #hide} is called. */
    static Storage pin(Device device, long bytes) {
        var address = device.allocatePinned(bytes);
        var arena = Arena.ofShared();
        return new Storage(device, Kind.PINNED, address, bytes, Native.memory(address, bytes, arena), arena, null, false);
    }

    /** The memory of a native segment. */
    static Storage borrow(Device device, MemorySegment memory) {
        return new Storage(
                device, Kind.BORROWED, MemorySegment.ofAddress(memory.address()), memory.byteSize(), memory, null, null,
                memory.isReadOnly());
    }

    /** Memory of another library, at an address that the device computes in; {@code owner} takes it back, once. */
    static Storage foreign(Device device, long address, long bytes, boolean readOnly, Runnable owner) {
        return new Storage(device, Kind.FOREIGN, MemorySegment.ofAddress(address), bytes, null, null, owner, readOnly);
    }

    /** Pinned or borrowed memory. */
    MemorySegment host() {
        if (host == null) {
            throw new IllegalStateException("device memory is not the host's");
        }
        return host;
    }

    /** If writing to it is an error: a file mapped for reading, for one. */
    boolean isReadOnly() {
        return readOnly;
    }

    /** False once the arena of borrowed memory was closed under it. */
    boolean isAlive() {
        return kind != Kind.BORROWED || host().scope().isAlive();
    }

    /**
     * Ends Java's access to pinned memory.
     *
     * @throws IllegalStateException if a thread reads or writes it now, a channel for one
     */
    void hide() {
        if (arena != null) {
            arena.close();
        }
    }

    /** If it is the caller's, whose arena decides how long it lives. */
    boolean isBorrowed() {
        return kind == Kind.BORROWED;
    }

    @Override
    public boolean queue(Stream stream) {
        return kind == Kind.DEVICE && stream.device() == device && stream.free(address);
    }

    @Override
    public void now() {
        if (owner != null) {
            GiveBacks.add(owner);
            return;
        }
        device.free("memory_free", bytes + " bytes", handle -> switch (kind) {
            case DEVICE -> culebra_h.cul_memory_free(handle, address);
            case PINNED -> culebra_h.cul_host_free(handle, address);
            case BORROWED, FOREIGN -> culebra_h.CUL_OK();
        });
    }
}
