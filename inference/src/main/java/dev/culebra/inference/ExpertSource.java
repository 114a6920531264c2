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
 * Where the experts of a layer come from: three matrices each, all stored alike, stacked over the experts, or already
 * stacked ({@link FusedExperts}). Floats; f8e4m3 with a scale for each block of 128 x 128 (DeepSeek); four bits of GPTQ, AWQ or
 * compressed-tensors.
 */
final class ExpertSource {
    private static final int F8_BLOCK = 128;

    private final Checkpoint checkpoint;
    private final ModelConfig.@Nullable Quantization quantization;
    private final ExpertNames names;
    private final @Nullable FusedExperts fused;
    private final Int4Matrix.@Nullable Format format;
    private final boolean f8;
    private final int group;
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
        this.quantization = quantization;
        this.count = experts.count();
        this.width = experts.width();
        this.hidden = hidden;
        names = ExpertNames.find(checkpoint, prefix);
        fused = FusedExperts.has(checkpoint, prefix) ? new FusedExperts(checkpoint, prefix, count, width, hidden) : null;
        var first = names.of(0, names.gate());
        format = fused == null ? format(first) : null;
        f8 = fused == null && format == null && checkpoint.contains(first + ".weight_scale_inv");
        group = format == null ? 0 : group();
        for (var expert = 0; fused == null && expert < count; expert++) {
            check(names.of(expert, names.gate()), width, hidden);
            check(names.of(expert, names.up()), width, hidden);
            check(names.of(expert, names.down()), hidden, width);
        }
        if (f8 && width % F8_BLOCK != 0) {
            throw checkpoint.error(first + ".weight", "has " + width + " rows: the blocks of " + F8_BLOCK
                    + " of gate and up, one behind the other, would not meet");
        }
    }

    private Int4Matrix.@Nullable Format format(String name) {
        if (checkpoint.contains(name + ".weight_packed")) {
            return Int4Matrix.Format.COMPRESSED_TENSORS;
        }
        if (!Gptq.has(checkpoint, name)) {
            return null;
        }
        // [k, n/8]; everything else is GPTQ's, or wrong.
        return checkpoint.shape(name + ".qweight")[0] == hidden ? Int4Matrix.Format.AWQ : Int4Matrix.Format.GPTQ;
    }

    /** GPTQ's config says; else what the scales' extents say: of two matrices, since one group a row may be any size. */
    private int group() {
        if (format == Int4Matrix.Format.GPTQ) {
            return quantization == null ? 0 : quantization.groupSize();
        }
        var wide = groups(names.of(0, names.gate()));
        var narrow = groups(names.of(0, names.down()));
        return wide > 1 ? (int) (hidden / wide) : narrow > 1 ? (int) (width / narrow) : -1;
    }

    private long groups(String name) {
        var compressed = format == Int4Matrix.Format.COMPRESSED_TENSORS;
        var scales = name + (compressed ? ".weight_scale" : ".scales");
        return checkpoint.contains(scales) && checkpoint.shape(scales).length == 2 ? checkpoint.shape(scales)[compressed ? 1 : 0] : 1;
    }

    private void check(String name, long n, long k) {
        if (format == Int4Matrix.Format.GPTQ || (format == null && Gptq.has(checkpoint, name))) {
            Gptq.check(checkpoint, quantization, name, n, k);
        } else if (format != null) {
            Int4Matrix.check(checkpoint, format, name, n, k, group);
        } else if (f8) {
            checkpoint.check(name + ".weight", new long[] {n, k}, DType.F8E4M3);
            checkpoint.check(name + ".weight_scale_inv", new long[] {Math.ceilDiv(n, F8_BLOCK), Math.ceilDiv(k, F8_BLOCK)}, DType.F32);
        } else {
            checkpoint.check(name + ".weight", new long[] {n, k}, Weights.FLOATS);
        }
    }

    /** What they take on the device. */
    long bytes() {
        return fused != null ? fused.bytes() : count * (2 * matrixBytes(width, hidden) + matrixBytes(hidden, width));
    }

    private long matrixBytes(long n, long k) {
        if (f8) {
            return n * k + Math.ceilDiv(n, F8_BLOCK) * Math.ceilDiv(k, F8_BLOCK) * DType.F32.bytes();
        }
        return format == null ? n * k * Precision.HALF.bytes() : n * (k / 2 + Gptq.groups(group, k) * Precision.HALF.bytes());
    }

    ExpertWeights load(Stream stream, Scope scope) {
        if (fused != null) {
            return fused.load(stream, scope);
        }
        if (format != null) {
            var w13 = new Stack(scope, 2 * width, hidden);
            var w2 = new Stack(scope, hidden, width);
            for (var expert = 0; expert < count; expert++) {
                w13.put(stream, expert, 0, names.of(expert, names.gate()), width);
                w13.put(stream, expert, width, names.of(expert, names.up()), width);
                w2.put(stream, expert, 0, names.of(expert, names.down()), hidden);
            }
            return ExpertWeights.int4(group, w13.weights, w13.scales, w13.zeros(stream), w2.weights, w2.scales, w2.zeros(stream));
        }
        var dtype = f8 ? DType.F8E4M3 : Precision.HALF;
        var w13 = stack(stream, scope, dtype, 2 * width, hidden, ".weight", names.gate(), names.up());
        var w2 = stack(stream, scope, dtype, hidden, width, ".weight", names.down());
        if (!f8) {
            return ExpertWeights.half(w13, w2);
        }
        var blocks = Math.ceilDiv(hidden, F8_BLOCK);
        var inner = width / F8_BLOCK;
        return ExpertWeights.f8(
                w13,
                stack(stream, scope, DType.F32, 2 * inner, blocks, ".weight_scale_inv", names.gate(), names.up()),
                w2,
                stack(stream, scope, DType.F32, blocks, inner, ".weight_scale_inv", names.down()));
    }

    /** [E, n, k], made of as many rows of each projection. */
    private Tensor stack(Stream stream, Scope scope, DType dtype, long n, long k, String suffix, String... projections) {
        var stack = scope.allocate(dtype, count, n, k);
        var rows = n / projections.length;
        for (var expert = 0; expert < count; expert++) {
            for (var i = 0; i < projections.length; i++) {
                try (var reading = scope.device().openScope(); var matrices = stack.select(0, expert);
                        var target = matrices.slice(0, i * rows, (i + 1) * rows)) {
                    Ops.cast(stream, checkpoint.load(stream, reading, names.of(expert, projections[i]) + suffix), target);
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
        private final byte[] zeros;
        private final long n;
        private final long k;
        private final int groups;
        private boolean symmetric = true;

        Stack(Scope scope, long n, long k) {
            this.scope = scope;
            this.n = n;
            this.k = k;
            this.groups = (int) Gptq.groups(group, k);
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
                var matrix = Int4Matrix.read(checkpoint, stream, reading, format, name, (int) rows, (int) k, group,
                        quantization != null && quantization.v2());
                target.upload(stream, MemorySegment.ofArray(matrix.weights()));
                Ops.cast(stream, matrix.scales(), targetScales);
                for (var i = 0; i < rows * groups; i++) {
                    var zero = matrix.zeros() == null ? 8 : matrix.zeros()[i];
                    var row = firstRow + i / groups;
                    symmetric &= zero == 8;
                    zeros[(int) ((expert * (n / 2) + row / 2) * groups + i % groups)] |= (byte) (zero << 4 * (row % 2));
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
