package dev.culebra;

import dev.culebra.internal.GiveBacks;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The end of a resource, in the order of the streams that used it. It visits each of them in turn at a moment when no
 * call is in progress on it: a call that still saw the resource open is then over, and what it queued is in front of
 * what the visit queues. A visit never waits: a stream in use is visited by the thread that leaves it.
 *
 * <p>Memory that one stream used is freed in that stream's order. Anything else waits for an event on each stream, and
 * is given back by whoever next collects the device's {@link Pending} releases.
 *
 * <p>Copies between devices leave uses on streams of other devices. These come last, device by device: the events of one are
 * pending there, and what they hold back are the visits of the next. Until the last one is through, the resource's native
 * device stays, closed or not.
 */
final class Release implements Disposal {
    private final Device device;
    private final Stream[] streams;
    private final boolean isShared;
    private List<MemorySegment> events = new ArrayList<>();
    private @Nullable MemorySegment descriptor;
    private @Nullable Disposal disposal;
    private int visited;

    private Release(Device device, Stream[] streams, boolean isShared, @Nullable MemorySegment descriptor,
            @Nullable Disposal disposal) {
        this.device = device;
        this.streams = streams;
        this.isShared = isShared;
        this.descriptor = descriptor;
        this.disposal = disposal;
    }

    /**
     * Starts the end of {@code disposal}, and of a tensor's descriptor. The caller holds no lock and has entered no stream.
     *
     * @param streams those that used it, and may still
     */
    static void start(Device device, Stream[] streams, @Nullable MemorySegment descriptor,
            @Nullable Disposal disposal) {
        var isShared = false;
        for (var stream : streams) {
            isShared |= stream.device() != device;
        }
        if (isShared) {
            device.keep();
        }
        new Release(device, isShared ? byDevice(device, streams) : streams, isShared, descriptor, disposal).advance();
        GiveBacks.run();
    }

    /** Those of {@code first} in front, those of any other device together. */
    private static Stream[] byDevice(Device first, Stream[] streams) {
        var devices = new ArrayList<Device>(List.of(first));
        for (var stream : streams) {
            if (!devices.contains(stream.device())) {
                devices.add(stream.device());
            }
        }
        var sorted = streams.clone();
        Arrays.sort(sorted, Comparator.comparingInt(stream -> devices.indexOf(stream.device())));
        return sorted;
    }

    private void advance() {
        if (visited < streams.length) {
            streams[visited].whenIdle(this);
        } else {
            finish();
        }
    }

    /** Called once by each stream in turn, with no call in progress on it. */
    void visit(Stream stream, boolean open) {
        var last = disposal;
        if (last != null && open) {
            if (streams.length == 1 && last.queue(stream)) {
                disposal = null;
            } else {
                var event = stream.mark();
                if (event != null) {
                    events.add(event);
                }
            }
        }
        visited++;
        if (visited < streams.length && streams[visited].device() != stream.device()) {
            var behind = events;
            events = new ArrayList<>();
            stream.device().pending().add(behind, this);
        } else {
            advance();
        }
    }

    /** All that streams of one device queued has run: on to the next device. */
    @Override
    public void now() {
        advance();
    }

    @Override
    public boolean queue(Stream stream) {
        return false;
    }

    private void finish() {
        if (descriptor != null) {
            device.descriptors().give(descriptor);
            descriptor = null;
        }
        var last = isShared ? new End(device, disposal) : disposal;
        if (last != null) {
            (isShared ? streams[streams.length - 1].device() : device).pending().add(events, last);
        }
    }

    /** The last step of a release that kept its device. */
    private record End(Device device, @Nullable Disposal disposal) implements Disposal {
        @Override
        public boolean queue(Stream stream) {
            return false;
        }

        @Override
        public void now() {
            if (disposal != null) {
                disposal.now();
            }
            device.returned();
        }
    }
}
