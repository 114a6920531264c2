package dev.culebra;

import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The end of a resource, in the order of the streams that used it. It visits each of them in turn at a moment when no
 * call is in progress on it: a call that still saw the resource open is then over, and what it queued is in front of
 * what the visit queues. A visit never waits: a stream in use is visited by the thread that leaves it.
 *
 * <p>Memory that one stream used is freed in that stream's order. Anything else waits for an event on each stream, and
 * is given back by whoever next collects the device's {@link Pending} releases.
 */
final class Release {
    private final Device device;
    private final Stream[] streams;
    private final List<MemorySegment> events = new ArrayList<>();
    private @Nullable MemorySegment descriptor;
    private @Nullable Disposal disposal;
    private int visited;

    private Release(Device device, Stream[] streams, @Nullable MemorySegment descriptor, @Nullable Disposal disposal) {
        this.device = device;
        this.streams = streams;
        this.descriptor = descriptor;
        this.disposal = disposal;
    }

    /**
     * Starts the end of {@code disposal}, and of a tensor's descriptor.
     *
     * @param streams those that used it, and may still
     */
    static void start(Device device, Stream[] streams, @Nullable MemorySegment descriptor,
            @Nullable Disposal disposal) {
        new Release(device, streams, descriptor, disposal).advance();
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
        advance();
    }

    private void finish() {
        if (descriptor != null) {
            device.descriptors().give(descriptor);
            descriptor = null;
        }
        if (disposal != null) {
            device.pending().add(events, disposal);
        }
    }
}
