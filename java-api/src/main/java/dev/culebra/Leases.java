package dev.culebra;

import dev.culebra.internal.Diagnostics;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** What a {@link Scope} owns. Apart from the scope, which a cleaner watches. */
final class Leases implements AutoCloseable {
    final Device device;
    private final @Nullable Leases parent;
    private final Set<Leases> children = new LinkedHashSet<>();
    private final @Nullable String site = Diagnostics.site();
    private @Nullable Lease last;
    private int size;
    private boolean closed;

    Leases(Device device, @Nullable Leases parent) {
        this.device = device;
        this.parent = parent;
    }

    /** False if it was closed; then nothing has changed. */
    synchronized boolean addChild(Leases child) {
        return !closed && children.add(child);
    }

    private synchronized void removeChild(Leases child) {
        children.remove(child);
    }

    /** False if it was closed; then nothing has changed. */
    synchronized boolean add(Lease lease) {
        if (closed) {
            return false;
        }
        lease.previous = last;
        lease.next = null;
        if (last != null) {
            last.next = lease;
        }
        last = lease;
        lease.leases = this;
        size++;
        return true;
    }

    private void unlink(Lease lease) {
        if (lease.previous != null) {
            lease.previous.next = lease.next;
        }
        if (lease.next != null) {
            lease.next.previous = lease.previous;
        } else {
            last = lease.previous;
        }
        lease.previous = null;
        lease.next = null;
        size--;
    }

    /** Closes one lease; false if it was closed before. */
    static boolean close(Lease lease) {
        while (true) {
            var leases = lease.leases;
            synchronized (leases) {
                if (lease.isClosed()) {
                    return false;
                }
                if (lease.leases == leases) {
                    lease.markClosed();
                    leases.unlink(lease);
                    break;
                }
            }
        }
        lease.release();
        return true;
    }

    /** Moves a lease to another list; false if the lease or that list was closed. */
    static boolean move(Lease lease, Leases target) {
        var from = lease.leases;
        if (from == target) {
            return !lease.isClosed();
        }
        // One order for all threads that move between the same two lists.
        var first = System.identityHashCode(from) <= System.identityHashCode(target) ? from : target;
        var second = first == from ? target : from;
        synchronized (first) {
            synchronized (second) {
                if (lease.isClosed() || lease.leases != from || target.closed) {
                    return false;
                }
                from.unlink(lease);
                return target.add(lease);
            }
        }
    }

    synchronized int size() {
        return size;
    }

    synchronized boolean isClosed() {
        return closed;
    }

    /** Closes children and leases, the youngest first. Closing again does nothing. */
    @Override
    public void close() {
        var all = new ArrayList<Leases>();  // parents before their children, the oldest first
        var next = new ArrayDeque<Leases>();
        for (var leases = this; leases != null; leases = next.poll()) {
            all.add(leases);
            leases.closeToOthers().reversed().forEach(next::push);
        }
        all.reversed().forEach(Leases::closeOwn);
    }

    /** From here on nothing is added. What was children is the caller's to close. */
    private synchronized List<Leases> closeToOthers() {
        closed = true;
        var open = new ArrayList<>(children);
        children.clear();
        return open;
    }

    private void closeOwn() {
        while (true) {
            Lease lease;
            synchronized (this) {
                lease = last;
            }
            if (lease == null) {
                break;
            }
            close(lease);
        }
        if (parent != null) {
            parent.removeChild(this);
        }
        device.forget(this);
    }

    /** Closes what its scope left behind when it became unreachable without having been closed. */
    void closeAbandoned() {
        if (isClosed()) {
            return;
        }
        if (Diagnostics.PARANOID) {
            Diagnostics.LOG.log(System.Logger.Level.WARNING, "leak: " + describe());
        }
        close();
    }

    /** The scope, where it was opened and what is open in it. */
    synchronized String describe() {
        var text = new StringBuilder("a scope of " + device + " was never closed; " + size + " tensors are open in it");
        if (site != null) {
            text.append("; it was opened").append(site);
        }
        for (var lease = last; lease != null; lease = lease.previous) {
            text.append("\n  ").append(lease);
        }
        return text.toString();
    }
}
