package dev.culebra;

import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.IdentityHashMap;
import java.util.Map;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/** What a stream records instead of running it: the work of a graph, or calls to prepare. Belongs to the stream's owner. */
final class StreamRecording {
    private final Stream stream;

    /** Readers without the stream look, too: nothing is given back meanwhile. */
    private volatile boolean open;

    private @Nullable Map<Uses, String> captured;
    private @Nullable CallRecorder calls;

    /** A graph that is captured anew, in its own workspace: the stream has that, and the graph the stream's. */
    private Graph.@Nullable Recording lender;

    StreamRecording(Stream stream) {
        this.stream = stream;
    }

    boolean isOpen() {
        return open;
    }

    /** Where calls are recorded; null: they are queued, or captured. */
    @Nullable CallRecorder calls() {
        return calls;
    }

    void use(Lease lease, String name) {
        if (captured != null) {
            captured.put(lease.storage, lease.toString());
        }
        if (calls != null) {
            calls.use(lease, name);
        }
    }

    void use(Uses uses, String name) {
        if (captured != null) {
            captured.put(uses, name);
        }
        if (calls != null) {
            calls.use(uses, name);
        }
    }

    void refuseCalls() {
        if (calls != null) {
            throw stream.failure(Status.UNSUPPORTED, "cannot be part of prepared calls");
        }
    }

    private void requireClosed() {
        if (open) {
            throw stream.failure(Status.UNSUPPORTED, "the stream is being " + (calls == null ? "captured" : "prepared")
                    + " already");
        }
    }

    /** Ends what is open, if anything, with everything back in its place. */
    private void close() {
        if (lender != null) {
            lender.workspace.exchange(stream.workspace());
            lender = null;
        }
        captured = null;
        calls = null;
        open = false;
    }

    // -------------------------------------------------------------------------------------------------------- graphs

    Graph capture(Runnable work) {
        // First, because nothing may fail once the native graph exists.
        var launched = stream.device().openEvent();
        Graph graph = null;
        try {
            beginCapture(null);
            try {
                work.run();
                graph = endCapture(launched);
                return graph;
            } finally {
                abort();
            }
        } finally {
            if (graph == null) {
                launched.close();
            }
        }
    }

    /** Captures {@code work} into a graph that exists; true if that was kept as it was instantiated. */
    boolean recapture(Graph.Recording graph, Runnable work, Consumer<Map<Uses, String>> taken) {
        beginCapture(graph);
        try {
            work.run();
            return endRecapture(graph, taken);
        } finally {
            abort();
        }
    }

    /** Begins a capture, in the larger of the stream's workspace and that of {@code graph}. */
    private void beginCapture(Graph.@Nullable Recording graph) {
        stream.enter("graph_begin_capture");
        try {
            requireClosed();
            stream.check(culebra_h.cul_graph_begin_capture(stream.handle()));
            if (graph != null && graph.workspace.bytes > stream.workspace().bytes) {
                graph.workspace.exchange(stream.workspace());
                lender = graph;
            }
            captured = new IdentityHashMap<>();
            open = true;
        } finally {
            stream.exit();
        }
    }

    private Graph endCapture(Event launched) {
        stream.enter("graph_end_capture");
        try {
            var result = stream.result();
            stream.check(culebra_h.cul_graph_end_capture(stream.handle(), result));
            var recording = new Graph.Recording(stream.device(), result.get(ValueLayout.ADDRESS, 0));
            recording.workspace.exchange(stream.workspace());
            var graph = new Graph(recording, captured, launched);
            close();
            stream.device().adoptGraph(graph);
            return graph;
        } finally {
            stream.exit();
        }
    }

    private boolean endRecapture(Graph.Recording graph, Consumer<Map<Uses, String>> taken) {
        stream.enter("graph_update");
        try {
            var result = stream.result();
            stream.check(culebra_h.cul_graph_update(graph.graph, stream.handle(), result));
            taken.accept(captured);
            if (lender == null) {
                graph.workspace.exchange(stream.workspace());  // the graph has the one that it was captured in
            }
            close();
            return result.get(ValueLayout.JAVA_INT, 0) != 0;
        } finally {
            stream.exit();
        }
    }

    private void abort() {
        if (open) {
            stream.enterAtLast("graph_abort_capture");
            try {
                close();
                stream.check(culebra_h.cul_graph_abort_capture(stream.handle()));
            } finally {
                stream.exit();
            }
        }
    }

    /** Ends what is open because the stream, which the caller has entered, is being closed. */
    void abandon() {
        if (open) {
            close();
            culebra_h.cul_graph_abort_capture(stream.handle());
        }
    }

    // ------------------------------------------------------------------------------------------------- prepared calls

    Prepared prepare(Runnable work) {
        stream.enter("prepare");
        try {
            requireClosed();
            calls = new CallRecorder();
            open = true;
        } finally {
            stream.exit();
        }
        try {
            work.run();
            return endPreparing();
        } finally {
            abort();
        }
    }

    private Prepared endPreparing() {
        stream.enter("prepare");
        try {
            var recorded = calls;
            close();
            var needed = recorded.workspaceBytes();
            var workspace = needed > 0 ? stream.allocateQueued(needed) : MemorySegment.NULL;
            return stream.device().adopt(recorded.finish(stream, workspace));
        } finally {
            stream.exit();
        }
    }
}
