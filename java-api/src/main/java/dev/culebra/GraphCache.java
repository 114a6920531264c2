package dev.culebra;

import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Graphs of work whose shapes change: one for each key, which is everything that the recorded calls depend on, their shapes and
 * their tensors. Work of a new key runs as it is, which also makes the workspace large enough; if it comes again, it is captured,
 * and from then on each run is one launch. Where there are more keys than graphs, the graph of the key that was not used for the
 * longest time takes the new recording over, as does one whose tensors were closed. One thread at a time.
 *
 * @param <K> of a class with equals and hashCode, a record or a list for one
 */
public final class GraphCache<K> implements AutoCloseable {
    private final Stream stream;
    private final int capacity;

    /** In the order of their last use; null: the work ran once and was not captured. */
    private final Map<K, @Nullable Graph> graphs = new LinkedHashMap<>(16, 0.75f, true);

    private int size;
    private long captures;
    private boolean closed;

    /**
     * An empty cache.
     *
     * @param stream where the work runs
     * @param capacity graphs at most; each owns a workspace
     */
    public GraphCache(Stream stream, int capacity) {
        if (capacity < 1) {
            throw new ArgumentException(Status.RANGE, "graph_cache", stream.device().backend(),
                    "graph_cache: the capacity is " + capacity + "; it must be 1 or more");
        }
        this.stream = stream;
        this.capacity = capacity;
    }

    /**
     * Queues {@code work}, which queues the same calls whenever it comes with this key.
     *
     * @throws ClosedException if the cache was closed
     * @throws UnsupportedException when it is to be captured and cannot be: {@link Stream#capture}
     */
    public void run(K key, Runnable work) {
        if (closed) {
            throw new ClosedException("graph_cache", stream.device().backend(), "graph_cache: it was closed; make another one");
        }
        if (!graphs.containsKey(key)) {
            work.run();
            forgetOldKeys();
            graphs.put(key, null);
            return;
        }
        var graph = graphs.get(key);
        if (graph == null) {
            graph = record(work);
            graphs.put(key, graph);
        } else if (graph.isStale()) {
            captures++;
            graph.update(stream, work);
        }
        graph.launch(stream);
    }

    /** Keys without a graph must not pile up either. */
    private void forgetOldKeys() {
        if (graphs.size() >= 4 * capacity) {
            graphs.values().removeIf(graph -> graph == null);
        }
    }

    private Graph record(Runnable work) {
        captures++;
        if (size < capacity) {
            var graph = stream.capture(work);
            size++;
            return graph;
        }
        K oldest = null;
        Graph graph = null;
        for (var entry : graphs.entrySet()) {
            if (entry.getValue() != null) {
                oldest = entry.getKey();
                graph = entry.getValue();
                break;
            }
        }
        graph.update(stream, work);
        graphs.remove(oldest);
        return graph;
    }

    /** Forgets all keys and closes their graphs: for tensors that have taken the place of others. */
    public void clear() {
        for (var graph : graphs.values()) {
            if (graph != null) {
                graph.close();
            }
        }
        graphs.clear();
        size = 0;
    }

    /** How many graphs there are. */
    public int size() {
        return size;
    }

    /** How often work was captured: one that grows with every run means keys that do not come again. */
    public long captures() {
        return captures;
    }

    @Override
    public void close() {
        closed = true;
        clear();
    }
}
