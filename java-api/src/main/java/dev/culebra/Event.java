package dev.culebra;

import dev.culebra.bindings.generated.culebra_h;
import dev.culebra.internal.Backoff;
import dev.culebra.internal.WaitEvent;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * A mark in a stream's queue that other streams and the host can wait for. {@link Stream#record} sets it, and a new
 * record takes the place of the last. Can be used by several threads.
 */
public final class Event implements AutoCloseable {
    private final Device device;
    private final MemorySegment handle;
    private boolean closed;

    Event(Device device, MemorySegment handle) {
        this.device = device;
        this.handle = handle;
    }

    /** If its last record has been passed, or it never was recorded. */
    public synchronized boolean isDone() {
        checkOpen("event_query");
        try (var arena = Arena.ofConfined()) {
            var done = arena.allocate(ValueLayout.JAVA_INT);
            Natives.check(culebra_h.cul_event_query(handle, done), "event_query", device.backend());
            return done.get(ValueLayout.JAVA_INT, 0) != 0;
        }
    }

    /**
     * Waits until its last record has been passed. A virtual thread does not hold its carrier meanwhile.
     *
     * @throws DeviceFailedException if work in front of it failed
     */
    public void synchronize() {
        var event = WaitEvent.begun();
        try {
            await();
        } finally {
            WaitEvent.end(event, "event_synchronize", device.backend());
        }
    }

    private void await() {
        if (Thread.currentThread().isVirtual() && device.backend() != Backend.SIMT) {
            try (var backoff = new Backoff()) {
                while (!isDone()) {
                    backoff.pause();
                }
            }
        }
        synchronized (this) {
            checkOpen("event_synchronize");
            Natives.check(culebra_h.cul_event_synchronize(handle), "event_synchronize", device.backend());
        }
    }

    /**
     * Milliseconds from the passing of {@code start} to the passing of this event.
     *
     * @throws UnsupportedException while one of them is pending or was never recorded
     */
    public double millisecondsSince(Event start) {
        try (var arena = Arena.ofConfined()) {
            var out = arena.allocate(ValueLayout.JAVA_DOUBLE);
            // Two threads that compare the same two events lock them in one order.
            var first = System.identityHashCode(start) <= System.identityHashCode(this) ? start : this;
            synchronized (first) {
                synchronized (first == this ? start : this) {
                    checkOpen("event_elapsed_ms");
                    start.checkOpen("event_elapsed_ms");
                    Natives.check(
                            culebra_h.cul_event_elapsed_ms(start.handle, handle, out), "event_elapsed_ms",
                                    device.backend());
                }
            }
            return out.get(ValueLayout.JAVA_DOUBLE, 0);
        }
    }

    /** If it was closed. */
    public synchronized boolean isClosed() {
        return closed;
    }

    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
            device.free("event_destroy", "an event", ignored -> culebra_h.cul_event_destroy(handle));
        }
        device.forget(this);
    }

    /** Records it on a stream that the caller has entered. */
    synchronized void recordOn(Stream stream) {
        checkUse(stream);
        stream.check(culebra_h.cul_event_record(handle, stream.handle()));
    }

    /** Has a stream that the caller has entered wait for it. */
    synchronized void waitOn(Stream stream) {
        checkUse(stream);
        stream.check(culebra_h.cul_stream_wait_event(stream.handle(), handle));
    }

    private void checkUse(Stream stream) {
        if (stream.device() != device) {
            throw stream.failure(Status.DEVICE, "the event is of " + device + " but the stream is of "
                    + stream.device());
        }
        checkOpen("event");
    }

    private void checkOpen(String op) {
        if (closed) {
            throw new ClosedException(op, device.backend(), op + ": the event was closed; open another one");
        }
    }
}
