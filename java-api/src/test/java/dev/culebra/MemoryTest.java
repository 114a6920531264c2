package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

@SuppressWarnings("try") // closed twice, or held open only
class MemoryTest {
    private static final int MIB = 1 << 20;

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void countsAndLimits(String backend) {
        try (var device = Device.open(backend, DeviceOptions.DEFAULT.withMemoryLimitBytes(8 * MIB));
                var stream = device.openStream(); var scope = device.openScope()) {
            assertEquals(8 * MIB, device.memory().statistics().limitBytes());
            var x = scope.allocate(DType.U8, 6 * MIB);
            var error = assertThrows(MemoryException.class, () -> scope.allocate(DType.U8, 3 * MIB));
            assertTrue(error.getMessage().contains(String.valueOf(3 * MIB))
                    && error.getMessage().contains(String.valueOf(8 * MIB)), error.getMessage());
            var statistics = device.memory().statistics();
            assertEquals(1, statistics.liveAllocations());
            assertTrue(statistics.usedBytes() >= 6 * MIB && statistics.peakUsedBytes() <= 8 * MIB,
                    statistics.toString());
            x.close();
            scope.allocate(DType.U8, 7 * MIB).close();
            device.memory().trim(0);
            assertEquals(0, device.memory().statistics().reservedBytes());
            device.memory().limit(0);
            scope.allocate(DType.U8, 9 * MIB);
            assertThrows(ArgumentException.class, () -> device.memory().limit(-1));
            stream.synchronize();
        }
    }

    /** What was closed is still queued to be freed: the allocation waits for it. */
    @Test
    void negativeSizesAreRefused() {
        assertThrows(ArgumentException.class, () -> Device.open("cpu", DeviceOptions.DEFAULT.withMemoryLimitBytes(-1)));
        try (var device = Device.open("cpu"); var stream = device.openStream()) {
            assertThrows(ArgumentException.class, () -> device.memory().limit(-1));
            assertThrows(ArgumentException.class, () -> device.memory().trim(-1));
            assertThrows(ArgumentException.class, () -> device.pin(-1));
            assertThrows(ArgumentException.class, () -> stream.reserveWorkspace(-1));
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void allocationWaitsForQueuedFrees(String backend) {
        try (var device = Device.open(backend, DeviceOptions.DEFAULT.withMemoryLimitBytes(8 * MIB));
                var stream = device.openStream(); var scope = device.openScope()) {
            for (var i = 0; i < 20; i++) {
                try (var x = scope.allocate(DType.U8, 5 * MIB)) {
                    x.zero(stream);
                }
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void failedTensorsLeakNothing(String backend) {
        try (var device = Device.open(backend, DeviceOptions.DEFAULT.withMemoryLimitBytes(MIB));
                var stream = device.openStream(); var scope = device.openScope()) {
            assertThrows(ArgumentException.class, () -> scope.floats(stream, new float[3], 4));
            assertThrows(MemoryException.class, () -> scope.zeros(stream, DType.F32, MIB));
            assertThrows(MemoryException.class, () -> stream.reserveWorkspace(2 * MIB));
            assertEquals(0, stream.workspaceBytes());
            stream.synchronize();
            assertEquals(0, device.memory().statistics().liveAllocations());
            assertEquals(0, scope.openTensors());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void workspacesGrowAndGo(String backend) {
        try (var device = Device.open(backend); var scope = device.openScope()) {
            try (var stream = device.openStream()) {
                stream.reserveWorkspace(1);
                assertEquals(MIB, stream.workspaceBytes());
                stream.reserveWorkspace(3 * MIB);
                stream.reserveWorkspace(100);
                assertEquals(3 * MIB, stream.workspaceBytes());
            }
            assertEquals(0, device.memory().statistics().liveAllocations());
            assertEquals(0, scope.openTensors());
        }
    }
}
