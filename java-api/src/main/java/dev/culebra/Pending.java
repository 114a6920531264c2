package dev.culebra;

import dev.culebra.bindings.generated.culebra_h;
import dev.culebra.internal.GiveBacks;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;

/** Releases that wait for events of a device: of more than one of its streams, or of what no stream can free. */
final class Pending {
    private record Entry(List<MemorySegment> events, Disposal disposal) {}

    private final Device device;
    private final List<Entry> entries = new ArrayList<>();

    /** Whether there are entries: read without the lock by every wait, which nearly always finds none. */
    private volatile boolean waiting;

    Pending(Device device) {
        this.device = device;
    }

    /** Gives {@code disposal} back once all events have passed: now, where they have. */
    void add(List<MemorySegment> events, Disposal disposal) {
        if (events.isEmpty()) {
            disposal.now();
            return;
        }
        synchronized (entries) {
            entries.add(new Entry(events, disposal));
            waiting = true;
        }
        collect();
    }

    /** Gives back what has become free. Allocates nothing where nothing waits. */
    void collect() {
        if (!waiting) {
            return;
        }
        List<Entry> free = new ArrayList<>();
        device.ifOpen(() -> take(entry -> entry.events.stream().allMatch(Pending::passed), free));
        give(free);
    }

    /** As {@link #collect}, and gives back what belongs to others: where no lock is held and no stream entered. */
    void settle() {
        collect();
        GiveBacks.run();
    }

    /** Gives everything back: the device has no stream any more. */
    void collectAll() {
        List<Entry> free = new ArrayList<>();
        take(entry -> true, free);
        give(free);
    }

    private void take(Predicate<Entry> isFree, List<Entry> free) {
        synchronized (entries) {
            entries.removeIf(entry -> isFree.test(entry) && free.add(entry));
            waiting = !entries.isEmpty();
        }
    }

    private void give(List<Entry> free) {
        for (var entry : free) {
            entry.events.forEach(event ->
                    device.free("event_destroy", "an event", ignored -> culebra_h.cul_event_destroy(event)));
            entry.disposal.now();
        }
    }

    private static boolean passed(MemorySegment event) {
        try (var arena = Arena.ofConfined()) {
            var done = arena.allocate(ValueLayout.JAVA_INT);
            // An event of a device that failed has passed: nothing runs there any more.
            return culebra_h.cul_event_query(event, done) != culebra_h.CUL_OK()
                    || done.get(ValueLayout.JAVA_INT, 0) != 0;
        }
    }
}
