package dev.culebra.micrometer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.Ops;
import io.micrometer.core.instrument.Tag;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

class DeviceMetricsTest {
    @Test
    void metersReadTheDevice() {
        var registry = new SimpleMeterRegistry();
        var device = Device.open("cpu");
        new DeviceMetrics(device, Tag.of("service", "test")).bindTo(registry);
        try (var stream = device.openStream(); var scope = device.openScope(); var pinned = device.pin(64)) {
            assertEquals(64, pinned.bytes());
            var x = scope.zeros(stream, DType.F32, 1000);
            var y = scope.zeros(stream, DType.F32, 1000);
            Ops.scale(stream, x, y, 2);
            Ops.scale(stream, y, x, 2);
            x.setFloats(stream, new float[1000]);
            stream.synchronize();
            device.memory().limit(1 << 20);
            assertEquals(8000, gauge(registry, "culebra.memory.used"));
            assertEquals(2, gauge(registry, "culebra.memory.live"));
            assertEquals(64, gauge(registry, "culebra.memory.pinned"));
            assertEquals(1 << 20, gauge(registry, "culebra.memory.limit"));
            assertTrue(gauge(registry, "culebra.memory.reserved") >= 8000);
            assertTrue(gauge(registry, "culebra.memory.peak") >= 8000);
        }
        assertEquals(2, counter(registry, "culebra.memory.allocations"));
        assertEquals(2, counter(registry, "culebra.operators"));
        assertEquals(1, counter(registry, "culebra.copies"));
        assertEquals(4000, counter(registry, "culebra.copied"));
        assertEquals(0, counter(registry, "culebra.graph.launches"));
        assertEquals(0, counter(registry, "culebra.prepared.runs"));
        var waits = registry.get("culebra.waits").tag("device", "cpu:0").functionTimer();
        assertEquals(2, waits.count());
        assertTrue(waits.totalTime(TimeUnit.NANOSECONDS) > 0);
        device.close();
        assertTrue(Double.isNaN(gauge(registry, "culebra.memory.used")), "of a closed device");
        assertEquals(2, counter(registry, "culebra.operators"));
    }

    private static double gauge(SimpleMeterRegistry registry, String name) {
        return registry.get(name).tag("device", "cpu:0").tag("service", "test").gauge().value();
    }

    private static double counter(SimpleMeterRegistry registry, String name) {
        return registry.get(name).tag("device", "cpu:0").tag("service", "test").functionCounter().count();
    }
}
