package dev.culebra;

import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Work recorded by {@link Stream#capture}, to be run again and again in one call. It owns its workspace; launches of
 * one graph run one after the other, whatever streams they are on. Can be used by several threads.
 */
public final class Graph implements AutoCloseable {
    /** The recorded work and its workspace, given back when no stream runs it any more. */
    static final class Recording extends Uses {
        final Device device;
        final MemorySegment graph;
        final Workspace workspace = new Workspace();

        Recording(Device device, MemorySegment graph) {
            this.device = device;
            this.graph = graph;
        }

        @Override
        public boolean queue(Stream stream) {
            return false;
        }

        @Override
        public void now() {
            device.free("graph_destroy", "a graph", ignored -> culebra_h.cul_graph_destroy(graph));
            if (workspace.bytes > 0) {
                device.free("memory_free", "a graph's workspace", handle ->
                        culebra_h.cul_memory_free(handle, workspace.memory));
            }
        }
    }

    private final Device device;
    private final Recording recording;
    private Uses[] memory;
    private String[] names;

    /** Behind the last launch; the next one, on another stream, waits for it. */
    private final Event launched;

    private @Nullable Stream last;
    private boolean closed;

    Graph(Recording recording, Map<Uses, String> captured, Event launched) {
        this.device = recording.device;
        this.recording = recording;
        this.memory = captured.keySet().toArray(Uses[]::new);
        this.names = captured.values().toArray(String[]::new);
        this.launched = launched;
    }

    /**
     * Queues the recorded work on {@code stream}.
     *
     * @throws ClosedException if the graph, or the memory of a tensor that it uses, was closed
     * @throws ArgumentException if the stream is of another device
     */
    public synchronized void launch(Stream stream) {
        stream.enterCalls("graph_launch");
        try {
            check(stream);
            if (stream.isCapturing()) {
                throw stream.failure(Status.UNSUPPORTED, "a launch cannot be captured");
            }
            recording.mark(stream);
            for (var i = 0; i < memory.length; i++) {
                memory[i].mark(stream);
                if (memory[i].isReleased()) {
                    throw stream.failure(Status.CLOSED, "the graph uses " + names[i]
                            + ", which was closed; keep what a graph uses open as long as it is launched");
                }
            }
            waitForLast(stream);
            stream.check(culebra_h.cul_graph_launch(recording.graph, stream.handle()));
            stream.counters().graphLaunches++;
            markLast(stream);
        } finally {
            stream.end();
        }
    }

    private void check(Stream stream) {
        if (closed) {
            throw stream.failure(Status.CLOSED, "the graph was closed; capture another one");
        }
        if (stream.device() != device) {
            throw stream.failure(Status.DEVICE, "the graph is of " + device + " but the stream is of " + stream.device());
        }
    }

    private void waitForLast(Stream stream) {
        if (last != null && last != stream) {
            launched.waitOn(stream);
        }
    }

    private void markLast(Stream stream) {
        launched.recordOn(stream);
        last = stream;
    }

    /**
     * Has the graph repeat, from its next launch on, what {@code work} queues on {@code stream}: as {@link Stream#capture}
     * into this graph. Launches that are queued keep what they had. The work may use the larger of this graph's workspace and
     * the stream's; nothing can be allocated meanwhile. If it fails, the graph is as before.
     *
     * @return true if the instantiated graph could be kept and only its parameters were replaced: on cuda where the work
     *     queues the same kernels in the same order, which costs a fraction of instantiating; on cpu always
     * @throws ClosedException if the graph was closed
     * @throws ArgumentException if the stream is of another device
     * @throws UnsupportedException as {@link Stream#capture}
     */
    public synchronized boolean update(Stream stream, Runnable work) {
        stream.enter("graph_update");
        try {
            check(stream);
            if (!stream.isCapturing()) {
                waitForLast(stream);  // the stream may get the workspace that launches still use
                recording.mark(stream);
            }
        } finally {
            stream.exit();
        }
        var inPlace = stream.recording().recapture(recording, work, captured -> {
            memory = captured.keySet().toArray(Uses[]::new);
            names = captured.values().toArray(String[]::new);
        });
        stream.enter("graph_update");
        try {
            markLast(stream);  // what the stream did in the workspace that the graph has now
        } finally {
            stream.exit();
        }
        return inPlace;
    }

    /** If memory that it uses is gone, so that it cannot be launched. */
    synchronized boolean isStale() {
        for (var uses : memory) {
            if (uses.isReleased()) {
                return true;
            }
        }
        return false;
    }

    /** How many calls it records. */
    public synchronized long nodes() {
        if (closed) {
            throw new ClosedException("graph_node_count", device.backend(), "the graph was closed");
        }
        try (var arena = Arena.ofConfined()) {
            var count = arena.allocate(ValueLayout.JAVA_LONG);
            Natives.check(culebra_h.cul_graph_node_count(recording.graph, count), "graph_node_count", device.backend());
            return count.get(ValueLayout.JAVA_LONG, 0);
        }
    }

    /** If it was closed. */
    public synchronized boolean isClosed() {
        return closed;
    }

    /** Gives it back once the launches queued so far have run; does not wait. */
    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        device.forget(this);
        launched.close();
        recording.drop();
        Release.start(device, recording.streams(), null, recording);
    }
}
