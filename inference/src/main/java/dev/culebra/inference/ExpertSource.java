package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.ExpertWeights;
import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * Where the experts of a layer come from: three matrices each, {@code gate_proj}, {@code up_proj} and {@code down_proj},
 * all dense or all quantized, stacked over the experts.
 */
final class ExpertSource {
    private final Checkpoint checkpoint;
    private final ModelConfig.@Nullable Quantization quantization;
    private final String prefix;
    private final int count;
    private final long width;
    private final long hidden;

    ExpertSource(
            Checkpoint checkpoint,
            ModelConfig.@Nullable Quantization quantization,
            String prefix,
            ModelConfig.Experts experts,
            long hidden) {
        this.checkpoint = checkpoint;
        this.quantization = Gptq.has(checkpoint, prefix + ".0.gate_proj") ? quantization : null;
        this.prefix = prefix;
        this.count = experts.count();
        this.width = experts.width();
        this.hidden = hidden;
        for (var expert = 0; expert < count; expert++) {
            check(name(expert, "gate_proj"), width, hidden);
            check(name(expert, "up_proj"), width, hidden);
            check(name(expert, "down_proj"), hidden, width);
        }
    }

    private void check(String name, long n, long k) {
        if (quantization != null || Gptq.has(checkpoint, name)) {
            Gptq.check(checkpoint, quantization, name, n, k);
        } else {
            checkpoint.check(name + ".weight", new long[] {n, k}, Weights.FLOATS);
        }
    }

    private String name(int expert, String projection) {
        return prefix + "." + expert + "." + projection;
    }

    /** What they take on the device. */
    long bytes() {
        return count * (2 * matrixBytes(width, hidden) + matrixBytes(hidden, width));
    }

    private long matrixBytes(long n, long k) {
        return quantization == null
                ? n * k * Precision.HALF.bytes()
                : n * (k / 2 + Gptq.groups(quantization.groupSize(), k) * Precision.HALF.bytes());
    }

    ExpertWeights load(Stream stream, Scope scope) {
        if (quantization == null) {
            return ExpertWeights.half(dense(stream, scope, 2 * width, hidden, "gate_proj", "up_proj"),
                    dense(stream, scope, hidden, width, "down_proj"));
        }
        var w13 = new Stack(scope, 2 * width, hidden, quantization);
        var w2 = new Stack(scope, hidden, width, quantization);
        for (var expert = 0; expert < count; expert++) {
            w13.put(stream, expert, 0, name(expert, "gate_proj"), width);
            w13.put(stream, expert, width, name(expert, "up_proj"), width);
            w2.put(stream, expert, 0, name(expert, "down_proj"), hidden);
        }
        return ExpertWeights.int4(quantization.groupSize(), w13.weights, w13.scales, w13.zeros(stream), w2.weights, w2.scales,
                w2.zeros(stream));
    }

    private Tensor dense(Stream stream, Scope scope, long n, long k, String... projections) {
        var stack = scope.allocate(Precision.HALF, count, n, k);
        var rows = n / projections.length;
        for (var expert = 0; expert < count; expert++) {
            for (var i = 0; i < projections.length; i++) {
                try (var reading = scope.device().openScope(); var matrices = stack.select(0, expert);
                        var target = matrices.slice(0, i * rows, (i + 1) * rows)) {
                    Ops.cast(stream, checkpoint.load(stream, reading, name(expert, projections[i]) + ".weight"), target);
                }
            }
        }
        return stack;
    }

    /** Four-bit matrices [E, N, K] in the order of {@code moe_mlp}: rows of n, two of k in a byte. */
    private final class Stack {
        final Tensor weights;
        final Tensor scales;
        private final Scope scope;
        private final ModelConfig.Quantization config;
        private final byte[] zeros;
        private final long n;
        private final long groups;
        private boolean symmetric = true;

        Stack(Scope scope, long n, long k, ModelConfig.Quantization config) {
            this.scope = scope;
            this.config = config;
            this.n = n;
            this.groups = Gptq.groups(config.groupSize(), k);
            this.weights = scope.allocate(DType.U8, count, n, k / 2);
            this.scales = scope.allocate(Precision.HALF, count, n, groups);
            this.zeros = new byte[Math.toIntExact(count * (n / 2) * groups)];
        }

        /** Stores a matrix of {@code rows} rows from {@code firstRow} of the expert on. */
        void put(Stream stream, int expert, long firstRow, String name, long rows) {
            try (var reading = scope.device().openScope();
                    var expertWeights = weights.select(0, expert);
                    var target = expertWeights.slice(0, firstRow, firstRow + rows);
                    var expertScales = scales.select(0, expert);
                    var targetScales = expertScales.slice(0, firstRow, firstRow + rows)) {
                if (Gptq.reordered(checkpoint, stream, reading, name, config.groupSize()) != null) {
                    throw checkpoint.error(name + ".g_idx", "reorders the channels of an expert (desc_act), which is not supported");
                }
                var words = checkpoint.load(stream, reading, name + ".qweight").ints(stream);
                target.upload(stream, MemorySegment.ofArray(transposed(words, (int) rows)));
                Ops.cast(stream, checkpoint.load(stream, reading, name + ".scales").transpose(0, 1), targetScales);
                putZeros(expert, firstRow, name, rows, checkpoint.load(stream, reading, name + ".qzeros").ints(stream));
            }
        }

        /** A word of GPTQ's [K/8, N] holds eight k of one n, the first in its lowest bits: in [N, K/8] it stays as it is. */
        private static int[] transposed(int[] words, int n) {
            var rows = words.length / n;
            var result = new int[words.length];
            for (var row = 0; row < rows; row++) {
                for (var column = 0; column < n; column++) {
                    result[column * rows + row] = words[row * n + column];
                }
            }
            return result;
        }

        private void putZeros(int expert, long firstRow, String name, long rows, int[] words) {
            var perGroup = (int) rows / Gptq.PER_WORD;
            for (var group = 0; group < groups; group++) {
                for (var row = 0; row < rows; row++) {
                    var stored = words[group * perGroup + row / Gptq.PER_WORD] >>> 4 * (row % Gptq.PER_WORD) & 15;
                    var zero = config.v2() ? stored : stored + 1;
                    if (zero > 15) {
                        throw checkpoint.error(name + ".qzeros", "has a zero point of 16 in row " + row + ", group " + group
                                + "; experts take 0 to 15");
                    }
                    symmetric &= zero == 8;
                    var at = (int) ((expert * (n / 2) + (firstRow + row) / 2) * groups + group);
                    zeros[at] |= (byte) (zero << 4 * ((firstRow + row) % 2));
                }
            }
        }

        /** The zero points, or null where all of them are 8. */
        @Nullable Tensor zeros(Stream stream) {
            if (symmetric) {
                return null;
            }
            var tensor = scope.allocate(DType.U8, count, n / 2, groups);
            tensor.setBytes(stream, zeros);
            return tensor;
        }
    }
}
