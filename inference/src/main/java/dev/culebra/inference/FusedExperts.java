package dev.culebra.inference;

import dev.culebra.ExpertWeights;
import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.util.Arrays;

/**
 * Experts that a checkpoint stores stacked, in floats: {@code gate_up_proj} and {@code down_proj}. Either as they are
 * multiplied, [E, 2I, D] with the gate rows first and [E, D, I]; or transposed, [E, D, 2I] with gate and up channels in turn and
 * [E, I, D], and with biases (gpt-oss).
 */
final class FusedExperts {
    private final Checkpoint checkpoint;
    private final String prefix;
    private final int count;
    private final long width;
    private final long hidden;
    private final boolean transposed;
    private final boolean biases;

    FusedExperts(Checkpoint checkpoint, String prefix, int count, long width, long hidden) {
        this.checkpoint = checkpoint;
        this.prefix = prefix;
        this.count = count;
        this.width = width;
        this.hidden = hidden;
        biases = checkpoint.contains(prefix + ".gate_up_proj_bias");
        // With D = 2I both shapes are one: only the transposed form has biases.
        transposed = biases || !Arrays.equals(checkpoint.shape(prefix + ".gate_up_proj"), new long[] {count, 2 * width, hidden});
        check(".gate_up_proj", transposed ? hidden : 2 * width, transposed ? 2 * width : hidden);
        check(".down_proj", transposed ? width : hidden, transposed ? hidden : width);
        if (biases) {
            check(".gate_up_proj_bias", 2 * width);
            check(".down_proj_bias", hidden);
        }
    }

    static boolean has(Checkpoint checkpoint, String prefix) {
        if (checkpoint.contains(prefix + ".gate_up_proj_blocks")) {
            throw checkpoint.error(prefix + ".gate_up_proj_blocks", "is in MXFP4, which is not supported; convert the experts to bf16");
        }
        return checkpoint.contains(prefix + ".gate_up_proj");
    }

    private void check(String name, long... shape) {
        var stacked = new long[shape.length + 1];
        stacked[0] = count;
        System.arraycopy(shape, 0, stacked, 1, shape.length);
        checkpoint.check(prefix + name, stacked, Weights.FLOATS);
    }

    long bytes() {
        return count * 3 * width * hidden * Precision.HALF.bytes();
    }

    ExpertWeights load(Stream stream, Scope scope) {
        var w13 = scope.allocate(Precision.HALF, count, 2 * width, hidden);
        var w2 = scope.allocate(Precision.HALF, count, hidden, width);
        try (var reading = scope.device().openScope()) {
            halves(stream, matrices(stream, reading, ".gate_up_proj"), w13);
            Ops.cast(stream, matrices(stream, reading, ".down_proj"), w2);
        }
        var experts = ExpertWeights.half(w13, w2);
        if (!biases) {
            return experts;
        }
        var b13 = scope.allocate(Precision.HALF, count, 2 * width);
        var b2 = scope.allocate(Precision.HALF, count, hidden);
        try (var reading = scope.device().openScope()) {
            halves(stream, checkpoint.load(stream, reading, prefix + ".gate_up_proj_bias"), b13);
            Ops.cast(stream, checkpoint.load(stream, reading, prefix + ".down_proj_bias"), b2);
        }
        return experts.withBiases(b13, b2);
    }

    /** [E, n, k]. */
    private Tensor matrices(Stream stream, Scope reading, String name) {
        var stored = checkpoint.load(stream, reading, prefix + name);
        return transposed ? stored.transpose(1, 2) : stored;
    }

    /** Rows gate, up, gate, up, ... (where they are transposed) of each expert to gate rows, then up rows. */
    private void halves(Stream stream, Tensor from, Tensor to) {
        if (!transposed) {
            Ops.cast(stream, from, to);
            return;
        }
        for (var half = 0; half < 2; half++) {
            try (var target = to.slice(1, half * width, (half + 1) * width)) {
                Ops.cast(stream, every(from, half), target);
            }
        }
    }

    /** Every second row of dimension 1, from row {@code first} on. */
    private Tensor every(Tensor rows, int first) {
        return rows.rank() == 2
                ? rows.reshape(count, width, 2).select(2, first)
                : rows.transpose(1, 2).reshape(count, hidden, width, 2).select(3, first).transpose(1, 2);
    }
}
