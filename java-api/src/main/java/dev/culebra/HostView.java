package dev.culebra;

import dev.culebra.bindings.Native;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * The memory of a cpu tensor as Java and Java's other libraries see it: a segment, or a direct buffer. The memory lives as long
 * as the view is open, whatever becomes of the tensor; that of a {@link Scope#wrap wrapped} segment, as long as its arena.
 * {@link Tensor#hostView} makes one.
 */
public final class HostView implements AutoCloseable {
    private final Lease lease;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment segment;

    private HostView(Tensor tensor) {
        lease = tensor.holdMemory("a host view");
        if (lease.storage.isBorrowed()) {
            // A part of the caller's segment, so that its arena guards every access.
            segment = lease.storage.host().asSlice(tensor.layout().offset_bytes(), tensor.bytes());
        } else {
            var memory = Native.memory(tensor.address(), tensor.bytes(), arena);
            segment = lease.storage.isReadOnly() ? memory.asReadOnly() : memory;
        }
    }

    static HostView of(Stream stream, Tensor tensor) {
        HostView view;
        stream.enter("host_view");
        try {
            stream.in(tensor, "the tensor");
            if (tensor.device().backend() != Backend.CPU) {
                throw stream.failure(Status.UNSUPPORTED, tensor + " is on " + tensor.device()
                        + ", whose memory the host does not see; download it");
            }
            tensor.requireContiguous(stream);
            view = new HostView(tensor);
        } finally {
            stream.exit();
        }
        try {
            tensor.device().adopt(view);
            stream.synchronize();
            return view;
        } catch (RuntimeException e) {
            view.close();
            throw e;
        }
    }

    /**
     * The elements, in row-major order; every access after {@link #close} throws {@link IllegalStateException}, or, to a
     * wrapped segment, after the end of its arena.
     */
    public MemorySegment segment() {
        return segment;
    }

    /**
     * The same as a direct buffer of the machine's byte order: {@code buffer().asFloatBuffer()} for one of floats.
     *
     * @throws UnsupportedOperationException if it has more than 2 GB
     */
    public ByteBuffer buffer() {
        return segment.asByteBuffer().order(ByteOrder.nativeOrder());
    }

    /** If it was closed. */
    public boolean isClosed() {
        return lease.isClosed();
    }

    /**
     * Ends the access to the memory, and frees it if the tensor was closed meanwhile.
     *
     * @throws ConcurrentUseException if another thread is in a call with the memory, writing it to a channel for one; the view
     *     then stays open
     */
    @Override
    public void close() {
        synchronized (this) {
            if (lease.isClosed()) {
                return;
            }
            endAccess(lease, arena::close);
            Leases.close(lease);
        }
        lease.storage.device.forget(this);
    }

    /** First of all: memory that somebody still accesses must not be freed. */
    static void endAccess(Lease lease, Runnable end) {
        try {
            end.run();
        } catch (IllegalStateException e) {
            throw new ConcurrentUseException("close", lease.storage.device.backend(), "close: a call with the memory of " + lease
                    + " is in progress in another thread; wait for it");
        }
    }
}
