package dev.culebra;

import dev.culebra.internal.Diagnostics;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * One owner's part in a {@link Storage}: what a scope must give back for a tensor, and all that it knows of it. Does
 * not refer to the tensor, so that the scope's list keeps no tensor reachable.
 */
final class Lease {
    final Storage storage;

    /** The tensor's native descriptor; a host buffer has none. */
    final @Nullable MemorySegment descriptor;

    private final String what;
    private final @Nullable String site = Diagnostics.site();
    private volatile boolean closed;

    /** The list that it is in, and its neighbours there; guarded by the list's lock, except that readers may look. */
    volatile Leases leases;

    @Nullable Lease previous;
    @Nullable Lease next;

    Lease(Leases leases, Storage storage, @Nullable MemorySegment descriptor, String what) {
        this.leases = leases;
        this.storage = storage;
        this.descriptor = descriptor;
        this.what = what;
    }

    boolean isClosed() {
        return closed;
    }

    /** Marks it closed. The list does this, under its lock. */
    void markClosed() {
        closed = true;
    }

    /** Lets go of the memory, in stream order. The list calls it once, without its lock. */
    void release() {
        var last = storage.drop();
        Release.start(storage.device, storage.streams(), descriptor, last ? storage : null);
    }

    CulebraException closedException(@Nullable String op, String name) {
        return new ClosedException(op, storage.device.backend(), (op == null ? "" : op + ": ") + name + ", " + what
                + ", was closed; keep it, or its scope, open as long as it is used" + Diagnostics.madeAt(site));
    }

    @Override
    public String toString() {
        return what + (site == null ? "" : site);
    }
}
