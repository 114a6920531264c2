package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.bindings.generated.culebra_h;
import java.util.HashSet;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Allocations fail one after the other: an exception, nothing leaked, and the device works on. */
class FaultTest {
    /** The system refuses once: memory of the device is asked for again, pinned memory is not. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void anyAllocationMayFailOnce(String backend) {
        try (var device = Device.open(backend)) {
            var failures = 0;
            for (var calls = 0; calls < 25; calls++) {
                culebra_h.cul_testing_fail_after(calls);
                try {
                    session(device);
                } catch (MemoryException e) {
                    failures++;
                } finally {
                    culebra_h.cul_testing_fail_after(-1);
                }
                assertEverythingIsFree(device, "after the failure of call " + calls);
                device.memory().trim(0);
            }
            assertTrue(failures >= 1, "nothing failed");
        }
    }

    /** The limit refuses whatever goes beyond it: each limit ends the session at another place. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void anyAllocationMayBeTheLast(String backend) {
        try (var device = Device.open(backend)) {
            var messages = new HashSet<String>();
            for (var limit = 256L; ; limit += 256) {
                device.memory().limit(limit);
                try {
                    session(device);
                    break;
                } catch (MemoryException e) {
                    messages.add(e.getStackTrace()[e.getStackTrace().length - 1] + e.getMessage());
                }
                assertEverythingIsFree(device, "with a limit of " + limit);
            }
            assertTrue(messages.size() >= 4, messages.toString());
        }
    }

    private static void assertEverythingIsFree(Device device, String when) {
        var statistics = device.memory().statistics();
        assertEquals(0, statistics.liveAllocations(), when);
        assertEquals(0, statistics.hostBytes(), when);
    }

    /** Tensors, a workspace, a graph, prepared calls, a pinned buffer and packed weights, closed before it returns or throws. */
    private static void session(Device device) {
        try (var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 2, 3);
            var q = scope.zeros(stream, DType.U8, 64, 64);
            var scales = scope.zeros(stream, DType.F16, 64, 1);
            try (var buffer = device.pin(24)) {
                x.download(stream, buffer, 0);
                stream.synchronize();
            }
            Ops.packWeights(stream, scope, CheckpointWeights.of(WeightFormat.PLAIN, 4, -1, q, scales, null, null));
            try (var graph = stream.capture(() -> x.fill(stream, 1))) {
                graph.launch(stream);
                graph.update(stream, () -> x.fill(stream, 2));
                graph.launch(stream);
            }
            try (var prepared = stream.prepare(() -> x.fill(stream, 3))) {
                prepared.run();
            }
            stream.synchronize();
        }
    }
}
