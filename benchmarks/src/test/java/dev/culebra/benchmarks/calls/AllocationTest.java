package dev.culebra.benchmarks.calls;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.management.ManagementFactory;
import org.junit.jupiter.api.Test;

/** A steady-state call through the Java API allocates no byte on the Java heap. */
class AllocationTest {
    private static final int CALLS = 1_000;
    private static final int ROUNDS = 100;

    private Object kept;

    @Test
    void operatorCallsAllocateNothing() {
        var api = new Api();
        api.backend = "cpu";
        api.open();
        assertEquals(0, leastBytes(api::query), "bytes in " + CALLS + " queries");
        assertEquals(0, leastBytes(api::rmsNorm), "bytes in " + CALLS + " batches of rms_norm");
        assertEquals(0, leastBytes(api::sample), "bytes in " + CALLS + " batches of sample");
        api.close();
    }

    @Test
    void theMeterSeesOneObjectACall() {
        assertTrue(leastBytes(() -> kept = new Object()) >= 8L * CALLS);
    }

    /** The compiler decides when a call has become a steady one, so the best round counts. */
    private static long leastBytes(Runnable call) {
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        var least = Long.MAX_VALUE;
        for (var round = 0; round < ROUNDS && least > 0; round++) {
            var before = threads.getCurrentThreadAllocatedBytes();
            for (var i = 0; i < CALLS; i++) {
                call.run();
            }
            least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
        }
        return least;
    }
}
