package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.management.ManagementFactory;
import org.junit.jupiter.api.Test;

/** A steady-state operator call allocates nothing on the Java heap. */
class AllocationTest {
    private static final int CALLS = 10_000;

    @Test
    void callsAllocateNothing() {
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        try (var device = Device.open("cpu", DeviceOptions.DEFAULT.withThreads(1)); var stream = device.openStream();
                var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 1, 8);
            var weight = scope.zeros(stream, DType.F32, 8);
            var least = Long.MAX_VALUE;
            // The compiler decides when a call has become a steady one: the best round counts.
            for (var round = 0; round < 20 && least > 0; round++) {
                var before = threads.getCurrentThreadAllocatedBytes();
                for (var i = 0; i < CALLS; i++) {
                    Ops.rmsNorm(stream, x, weight, null, x, null, 1e-6f, false);
                    Ops.siluMul(stream, x, x, x);
                }
                least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
                stream.synchronize();
            }
            assertTrue(least < CALLS, least + " bytes in " + 2 * CALLS + " calls");
        }
    }
}
