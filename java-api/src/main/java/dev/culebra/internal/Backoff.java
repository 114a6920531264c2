package dev.culebra.internal;

import java.util.concurrent.locks.LockSupport;

/** Waits of growing length between polls: turns of a spin first, then parked up to a millisecond. */
public final class Backoff {
    private static final int SPINS = 64;
    private static final long LONGEST_NS = 1_000_000;

    private int turns;
    private long park_ns = 5_000;

    /** Waits a little longer than the last time. A virtual thread leaves its carrier meanwhile. */
    public void pause() {
        if (turns++ < SPINS) {
            Thread.onSpinWait();
        } else {
            LockSupport.parkNanos(park_ns);
            park_ns = Math.min(2 * park_ns, LONGEST_NS);
        }
    }
}
