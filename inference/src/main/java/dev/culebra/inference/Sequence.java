package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.GraphCache;
import dev.culebra.HostBuffer;
import dev.culebra.Ops;
import dev.culebra.Prepared;
import dev.culebra.RotaryTables;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * One text that a model reads and continues: its caches and its place in them. {@link #prefill} reads tokens, {@link
 * #next} writes one. Used by one thread at a time.
 *
 * <p>A step of decoding is one {@link ForwardPass} over buffers that were allocated here: position, length and token live
 * on the device, and the step moves them on itself, so that nothing is allocated or uploaded between two tokens, and the step
 * can be recorded: by default the first one runs as it is, the second is captured, and each from then on is one launch.
 */
public final class Sequence implements AutoCloseable {
    /** Tokens of a prefill that are computed at once: their buffers are what a prefill takes beyond the caches. */
    private static final int CHUNK = 512;

    private final Qwen3NextModel model;
    private final int capacity;
    private final Scope scope;
    private final Stream stream;
    private final HostBuffer host;
    private final List<LayerCache> caches;
    private final RotaryTables rotary;
    private final Tensor token;
    private final Tensor position;
    private final Tensor length;
    private final Sampler sampler;
    private final ForwardPass decode;
    private final Queueing queueing;
    private final GraphCache<String> graphs;
    private @Nullable Prepared prepared;
    private long queueNanos;
    private int size;

    /** How a step of decoding gets into the stream. The results are the same bits. */
    public enum Queueing {
        /** Operator by operator: each call shows in a recording of the JVM's events. */
        CALLS,
        /** As a list of calls, in one native call. */
        PREPARED,
        /** As a graph, in one launch. */
        GRAPH
    }

    /** What {@code sample} takes beside logits, each of one element. */
    private record Sampler(Tensor temperature, Tensor topK, Tensor topP, Tensor minP, Tensor seed) {
        static Sampler allocate(Stream stream, Scope scope, Sampling sampling) {
            return new Sampler(
                    scope.floats(stream, new float[] {sampling.temperature()}, 1),
                    scope.ints(stream, new int[] {sampling.topK()}, 1),
                    scope.floats(stream, new float[] {sampling.topP()}, 1),
                    scope.floats(stream, new float[] {sampling.minP()}, 1),
                    scope.longs(stream, new long[] {sampling.seed()}, 1));
        }
    }

    /**
     * An empty sequence.
     *
     * @param capacity tokens that it can hold, read and written
     * @throws IllegalArgumentException if that is more than the model's context
     * @throws dev.culebra.MemoryException if the caches do not fit into the device's memory
     */
    public Sequence(Qwen3NextModel model, int capacity, Sampling sampling) {
        this(model, capacity, sampling, Queueing.GRAPH);
    }

    /** As {@link #Sequence(Qwen3NextModel, int, Sampling)}, with another way of queueing. */
    public Sequence(Qwen3NextModel model, int capacity, Sampling sampling, Queueing queueing) {
        var context = model.config().maxPositions();
        if (capacity < 1 || capacity > context) {
            throw new IllegalArgumentException("a sequence of " + capacity + " tokens; the model's context holds 1 to " + context);
        }
        this.model = model;
        this.capacity = capacity;
        this.queueing = queueing;
        var device = model.device();
        scope = device.openScope();
        stream = device.openStream();
        host = device.pin(Integer.BYTES);
        graphs = new GraphCache<>(stream, 1);
        try {
            var pages = Math.ceilDiv(capacity, LayerCache.Attention.PAGE);
            caches = model.allocateCaches(scope, pages);
            rotary = rotary();
            token = scope.allocate(DType.I32, 1);
            position = scope.allocate(DType.I64, 1);
            length = scope.allocate(DType.I32, 1);
            sampler = Sampler.allocate(stream, scope, sampling);
            decode = decodePass(pages);
            clear();
        } catch (RuntimeException e) {
            close();
            throw e;
        }
    }

    private RotaryTables rotary() {
        var attention = model.config().attention();
        var half = attention.rotaryDim() / 2;
        var cos = new float[capacity * half];
        var sin = new float[capacity * half];
        for (var at = 0; at < capacity; at++) {
            for (var i = 0; i < half; i++) {
                var angle = at * Math.pow(attention.ropeTheta(), -2.0 * i / attention.rotaryDim());
                cos[at * half + i] = (float) Math.cos(angle);
                sin[at * half + i] = (float) Math.sin(angle);
            }
        }
        return new RotaryTables(
                scope.floats(stream, cos, capacity, half), scope.floats(stream, sin, capacity, half), false);
    }

    private ForwardPass decodePass(int pages) {
        var order = new int[pages];
        Arrays.setAll(order, page -> page);
        var pageTable = scope.ints(stream, order, 1, pages);
        var one = scope.longs(stream, new long[] {1}, 1);
        var behind = scope.allocate(DType.I64, 1);
        var pass = new ForwardPass(scope, 1);
        pass.then(on -> Ops.cast(on, length, position));
        pass.then(on -> Ops.add(on, position, one, behind));
        pass.then(on -> Ops.cast(on, behind, length));
        var hidden = model.bind(pass, token, caches, new Positions.Moving(position, rotary, length, pageTable));
        bindSample(pass, model.bindHead(pass, hidden));
        return pass;
    }

    private void bindSample(ForwardPass pass, Tensor logits) {
        pass.then(on -> Ops.sample(on, logits, sampler.temperature, sampler.topK, sampler.topP, sampler.minP, sampler.seed,
                position, token, null));
    }

    /** The number of tokens read so far; the one written last is read with the next step. */
    public int size() {
        return size;
    }

    /** The number of tokens that it can hold. */
    public int capacity() {
        return capacity;
    }

    /** Forgets all tokens. */
    public void clear() {
        caches.forEach(cache -> cache.clear(stream));
        size = 0;
    }

    /**
     * Reads tokens, behind those read before.
     *
     * @return the token that the model continues with
     * @throws IllegalArgumentException if there are none, an id is not in the vocabulary, or they exceed the capacity
     */
    public int prefill(int... ids) {
        check(ids);
        for (var from = 0; from < ids.length; from += CHUNK) {
            var chunk = Arrays.copyOfRange(ids, from, Math.min(ids.length, from + CHUNK));
            var last = from + chunk.length == ids.length;
            try (var pass = new ForwardPass(scope, chunk.length)) {
                var hidden = bindChunk(pass, chunk);
                if (last) {
                    bindSample(pass, model.bindHead(pass, hidden.slice(0, chunk.length - 1, chunk.length)));
                }
                pass.run(stream);
            }
        }
        return read();
    }

    /**
     * Reads tokens, behind those read before, and tells what the model expects behind each.
     *
     * @return the logits behind each token, a row of the vocabulary's size each
     * @throws IllegalArgumentException as {@link #prefill}
     */
    public float[][] logits(int... ids) {
        check(ids);
        var rows = new float[ids.length][];
        for (var from = 0; from < ids.length; from += CHUNK) {
            var chunk = Arrays.copyOfRange(ids, from, Math.min(ids.length, from + CHUNK));
            try (var pass = new ForwardPass(scope, chunk.length)) {
                var logits = model.bindHead(pass, bindChunk(pass, chunk));
                pass.run(stream);
                var vocabulary = model.config().vocabSize();
                var values = logits.floats(stream);
                for (var row = 0; row < chunk.length; row++) {
                    rows[from + row] = Arrays.copyOfRange(values, row * vocabulary, (row + 1) * vocabulary);
                }
            }
        }
        return rows;
    }

    private void check(int... ids) {
        if (ids.length == 0) {
            throw new IllegalArgumentException("there are no tokens to read");
        }
        if (ids.length > capacity - size) {
            throw new IllegalArgumentException(ids.length + " tokens behind " + size + " exceed the sequence's capacity of " + capacity);
        }
        for (var id : ids) {
            if (id < 0 || id >= model.config().vocabSize()) {
                throw new IllegalArgumentException("token " + id + " is not in the vocabulary of " + model.config().vocabSize());
            }
        }
    }

    /** Binds the model over a chunk behind what was read so far, and moves the sequence's place behind it. */
    private Tensor bindChunk(ForwardPass pass, int[] chunk) {
        var ids = pass.allocate(DType.I32, chunk.length);
        ids.setInts(stream, chunk);
        var positions = new long[chunk.length];
        Arrays.setAll(positions, i -> size + i);
        var at = pass.allocate(DType.I64, chunk.length);
        at.setLongs(stream, positions);
        size += chunk.length;
        var cuQ = pass.allocate(DType.I32, 2);
        cuQ.setInts(stream, 0, chunk.length);
        var cuK = pass.allocate(DType.I32, 2);
        cuK.setInts(stream, 0, size);
        position.setLongs(stream, size - 1);
        length.setInts(stream, size);
        return model.bind(pass, ids, caches, new Positions.Fixed(at, rotary, size, cuQ, cuK));
    }

    /**
     * Reads the token written last, and writes the next.
     *
     * @throws IllegalStateException if nothing was read yet, or the capacity is exhausted
     */
    public int next() {
        if (size == 0 || size == capacity) {
            throw new IllegalStateException(size == 0 ? "there is no token to continue" : "the sequence is full: " + capacity + " tokens");
        }
        size++;
        var begin = System.nanoTime();
        switch (queueing) {
            case CALLS -> queueStep();
            case PREPARED -> {
                if (prepared == null) {
                    prepared = stream.prepare(this::queueStep);
                }
                prepared.run();
            }
            case GRAPH -> graphs.run("decode", this::queueStep);
        }
        queueNanos += System.nanoTime() - begin;
        return await();
    }

    private void queueStep() {
        decode.run(stream);
        token.download(stream, host, 0);
    }

    /** Host time that {@link #next} has spent so far until its step was queued, waiting apart. */
    public long queueNanos() {
        return queueNanos;
    }

    /** The token that was drawn. */
    private int read() {
        token.download(stream, host, 0);
        return await();
    }

    private int await() {
        stream.synchronize();
        return host.segment().get(ValueLayout.JAVA_INT, 0);
    }

    /** Frees the caches and buffers. */
    @Override
    public void close() {
        graphs.close();
        if (prepared != null) {
            prepared.close();
        }
        stream.close();
        host.close();
        scope.close();
    }
}
