package dev.culebra;

import java.lang.foreign.MemorySegment;

/**
 * Pinned host memory: copies between it and tensors are queued and overlap with the device's work. What it holds must
 * stay unchanged until the stream has passed the copy.
 */
public final class HostBuffer implements AutoCloseable {
    private final Lease lease;

    HostBuffer(Storage storage) {
        this.lease = new Lease(new Leases(storage.device, null), storage, null, "a host buffer of " + storage.bytes
                + " bytes");
        lease.leases.add(lease);
    }

    /** Its size. */
    public long bytes() {
        return lease.storage.bytes;
    }

    /**
     * The memory; every access after {@link #close} throws {@link IllegalStateException}.
     *
     * @throws ClosedException if it was closed
     */
    public MemorySegment segment() {
        if (lease.isClosed()) {
            throw lease.closedException(null, "the buffer");
        }
        return lease.storage.host();
    }

    /** If it was closed. */
    public boolean isClosed() {
        return lease.isClosed();
    }

    /**
     * Ends the access to it, and frees it once queued copies have run; does not wait.
     *
     * @throws ConcurrentUseException if another thread is in a call with its memory, reading a channel into it for one; the
     *     buffer then stays open
     */
    @Override
    public void close() {
        synchronized (this) {
            if (lease.isClosed()) {
                return;
            }
            HostView.endAccess(lease, lease.storage::hide);
            Leases.close(lease);
        }
        lease.storage.device.forget(this);
    }

    Lease lease() {
        return lease;
    }

    /** The address of {@code bytes} bytes from {@code offset_bytes} on, for a copy on {@code stream}. */
    MemorySegment range(Stream stream, long offset_bytes, long bytes) {
        if (offset_bytes < 0 || offset_bytes > bytes() - bytes) {
            throw stream.failure(Status.RANGE, bytes + " bytes from " + offset_bytes + " on exceed the host buffer's "
                    + bytes());
        }
        stream.useMemory(lease, "the buffer");
        return MemorySegment.ofAddress(lease.storage.address.address() + offset_bytes);
    }
}
