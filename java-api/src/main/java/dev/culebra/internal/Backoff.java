package dev.culebra.internal;

import java.util.concurrent.locks.LockSupport;

/**
 * Waits of growing length between polls: turns of a spin first, then parked up to a millisecond. An interrupt does not end the
 * wait; it is seen again when the wait is over, at {@link #close}.
 */
public final class Backoff implements AutoCloseable {
    private static final int SPINS = 64;
    private static final long LONGEST_NS = 1_000_000;

    private int turns;
    private long park_ns = 5_000;
    private boolean interrupted;

    /** Waits a little longer than the last time. A virtual thread leaves its carrier meanwhile. */
    public void pause() {
        if (turns++ < SPINS) {
            Thread.onSpinWait();
        } else {
            interrupted |= Thread.interrupted(); // or it would not park at all, and keep its carrier
            LockSupport.parkNanos(park_ns);
            park_ns = Math.min(2 * park_ns, LONGEST_NS);
        }
    }

    @Override
    public void close() {
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
