package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * One pass of some tokens through a model: operator calls in order, bound to their tensors once and run any number of times.
 * A run allocates nothing on the device. Buffers are shared: what a frame took is taken again by later frames.
 */
final class ForwardPass implements AutoCloseable {
    /** One operator call. */
    @FunctionalInterface
    interface Call {
        void on(Stream stream);
    }

    private record Kind(DType dtype, List<Long> shape) {}

    private final Scope scope;
    private final int rows;
    private final List<Call> calls = new ArrayList<>();
    private final Map<Kind, Deque<Tensor>> idle = new HashMap<>();

    /** A pass of {@code rows} tokens. */
    ForwardPass(Scope parent, int rows) {
        this.scope = parent.openScope();
        this.rows = rows;
    }

    /** The number of tokens. */
    int rows() {
        return rows;
    }

    /** Appends a call. */
    void then(Call call) {
        calls.add(call);
    }

    /** A tensor for the life of the pass. */
    Tensor allocate(DType dtype, long... shape) {
        return scope.allocate(dtype, shape);
    }

    /** Takes a view of what outlives the pass, to be closed with it. */
    Tensor adopt(Tensor view) {
        return view.moveTo(scope);
    }

    /** Queues all calls. */
    void run(Stream stream) {
        for (var call : calls) {
            call.on(stream);
        }
    }

    /** Buffers that live from one call to a later one: until the frame is closed. */
    Frame frame() {
        return new Frame();
    }

    @Override
    public void close() {
        scope.close();
    }

    final class Frame implements AutoCloseable {
        private final Map<Tensor, Kind> taken = new HashMap<>();

        /** A buffer of the stream's type. */
        Tensor stream(long... shape) {
            return take(Precision.STREAM, shape);
        }

        Tensor take(DType dtype, long... shape) {
            var kind = new Kind(dtype, Arrays.stream(shape).boxed().toList());
            var tensor = idle.computeIfAbsent(kind, unused -> new ArrayDeque<>()).poll();
            if (tensor == null) {
                tensor = allocate(dtype, shape);
            }
            taken.put(tensor, kind);
            return tensor;
        }

        @Override
        public void close() {
            taken.forEach((tensor, kind) -> idle.get(kind).push(tensor));
        }
    }
}
