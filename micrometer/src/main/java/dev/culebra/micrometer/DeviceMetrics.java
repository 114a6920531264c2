package dev.culebra.micrometer;

import dev.culebra.ClosedException;
import dev.culebra.Device;
import dev.culebra.DeviceCounters;
import dev.culebra.MemoryStatistics;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.FunctionTimer;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Tag;
import io.micrometer.core.instrument.Tags;
import io.micrometer.core.instrument.binder.BaseUnits;
import io.micrometer.core.instrument.binder.MeterBinder;
import java.util.concurrent.TimeUnit;
import java.util.function.ToDoubleFunction;
import java.util.function.ToLongFunction;

/**
 * Binds a device to a registry: {@code new DeviceMetrics(device).bindTo(registry)}. Meters read what the device counts anyway
 * when somebody asks for them; a call of an operator costs no more. All carry the tag {@code device}, {@code cpu:0} for one.
 * Gauges of a device that was closed are NaN. The device is held weakly, as Micrometer does: keep it reachable.
 *
 * <table class="striped">
 * <caption>Meters</caption>
 * <tr><th>name<th>type<th>what
 * <tr><td>culebra.memory.used, .reserved, .peak, .limit, .pinned<td>gauge, bytes<td>{@link MemoryStatistics}
 * <tr><td>culebra.memory.live<td>gauge<td>allocations that were not freed
 * <tr><td>culebra.memory.allocations<td>counter<td>allocations
 * <tr><td>culebra.operators, culebra.copies, culebra.copied (bytes), culebra.graph.launches, culebra.prepared.runs
 *     <td>counter<td>{@link DeviceCounters}
 * <tr><td>culebra.waits<td>timer<td>waits of threads for a stream: count and total time
 * </table>
 */
public final class DeviceMetrics implements MeterBinder {
    private final Device device;
    private final Tags tags;

    /** Of a device, with tags of the application's besides. */
    public DeviceMetrics(Device device, Tag... tags) {
        this.device = device;
        this.tags = Tags.of(tags).and("device", device.toString());
    }

    @Override
    public void bindTo(MeterRegistry registry) {
        bytes(registry, "culebra.memory.used", "handed out and not freed", MemoryStatistics::usedBytes);
        bytes(registry, "culebra.memory.reserved", "taken from the system", MemoryStatistics::reservedBytes);
        bytes(registry, "culebra.memory.peak", "the most that was used", MemoryStatistics::peakUsedBytes);
        bytes(registry, "culebra.memory.limit", "the limit; 0: none", MemoryStatistics::limitBytes);
        bytes(registry, "culebra.memory.pinned", "pinned memory of the host", MemoryStatistics::hostBytes);
        Gauge.builder("culebra.memory.live", device, memory(MemoryStatistics::liveAllocations))
                .description("allocations that were not freed").tags(tags).register(registry);
        FunctionCounter.builder("culebra.memory.allocations", device, memory(MemoryStatistics::allocations))
                .description("allocations").tags(tags).register(registry);
        counter(registry, "culebra.operators", "operator calls queued", DeviceCounters::operators);
        counter(registry, "culebra.copies", "copies queued", DeviceCounters::copies);
        FunctionCounter.builder("culebra.copied", device, of -> of.counters().copiedBytes())
                .description("bytes of the copies").baseUnit(BaseUnits.BYTES).tags(tags).register(registry);
        counter(registry, "culebra.graph.launches", "graphs launched", DeviceCounters::graphLaunches);
        counter(registry, "culebra.prepared.runs", "lists of prepared calls run", DeviceCounters::preparedRuns);
        FunctionTimer.builder("culebra.waits", device, of -> of.counters().waits(), of -> of.counters().waitedNanos(),
                        TimeUnit.NANOSECONDS)
                .description("waits of threads for a stream").tags(tags).register(registry);
    }

    private void bytes(MeterRegistry registry, String name, String description, ToLongFunction<MemoryStatistics> value) {
        Gauge.builder(name, device, memory(value)).description(description).baseUnit(BaseUnits.BYTES).tags(tags).register(registry);
    }

    private void counter(MeterRegistry registry, String name, String description, ToLongFunction<DeviceCounters> value) {
        FunctionCounter.builder(name, device, of -> value.applyAsLong(of.counters()))
                .description(description).tags(tags).register(registry);
    }

    private static ToDoubleFunction<Device> memory(ToLongFunction<MemoryStatistics> value) {
        return device -> {
            try {
                return value.applyAsLong(device.memory().statistics());
            } catch (ClosedException e) {
                return Double.NaN;
            }
        };
    }
}
