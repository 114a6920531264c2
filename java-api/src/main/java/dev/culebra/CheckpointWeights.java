package dev.culebra;

import dev.culebra.bindings.generated.cul_checkpoint;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * A quantized weight matrix [N, K] as a checkpoint stores it: {@code w = (q - z) * s}. G is the number of groups, 1 for
 * group -1, else K / group rounded up: the last group may be partial. Start from {@link #of}, which is right for the
 * integer formats of checkpoints; the {@code with} methods say what else a matrix is or will be multiplied with.
 *
 * @param format decides the shapes below
 * @param bits 4 or 8; PLAIN also 6
 * @param group rows of k that share a scale: -1 (all), 32, 64 or 128; 6 bits: 128
 * @param n the matrix's output features
 * @param k its input features
 * @param qweight GPTQ: i32 [K bits/32, N]; AWQ: i32 [K, N bits/32]; COMPRESSED_TENSORS: i32 [N, ceil(K bits/32)];
 *     PLAIN: [N, K], u8, i8 with zero points of 0, or f8e4m3 (bits 8)
 * @param scales GPTQ, AWQ: f16 [G, N]; COMPRESSED_TENSORS, PLAIN: half [N, G]; {@link Scaling#BLOCK128}: f32
 *     [ceil(N/128), ceil(K/128)]; 4 bits for {@link Operand#BYTE}: f8e4m3 [N, G]
 * @param zeros GPTQ, AWQ: i32 [G, N bits/32]; COMPRESSED_TENSORS: i32 [ceil(N bits/32), G]; PLAIN: [N, G] as qweight;
 *     the last two may be null: symmetric
 * @param groupIndex i32 [K], the group of each k (act-order); null: k / group
 * @param scaling which weights share a scale
 * @param sparsity where weights are zero by construction
 * @param operand what the weights will be multiplied with
 */
public record CheckpointWeights(
        WeightFormat format,
        int bits,
        int group,
        long n,
        long k,
        Tensor qweight,
        Tensor scales,
        @Nullable Tensor zeros,
        @Nullable Tensor groupIndex,
        Scaling scaling,
        Sparsity sparsity,
        Operand operand) {

    /** Which weights share a scale. */
    public enum Scaling {
        /** Those of an output feature and group. */
        GROUP,
        /** Those of 128 output features by 128 input features; bits 8, PLAIN, group -1, no groupIndex. */
        BLOCK128
    }

    /** Where weights are zero by construction. */
    public enum Sparsity {
        /** Nowhere. */
        NONE,
        /**
         * Of each four consecutive k at most two weights differ from their zero point; only those two are stored, with
         * their places. Bits 4, PLAIN, symmetric, group -1 or 128: for {@link Ops#w4a16Sparse24Gemm}.
         */
        TWO_OF_FOUR
    }

    /** What packed weights are multiplied with; it decides their layout. */
    public enum Operand {
        /** Activations in f16 or bf16. */
        HALF,
        /**
         * Activations of one byte: {@link Ops#w4a8Gemm} (bits 4), {@link Ops#w6a8Gemm} (bits 6). PLAIN, symmetric,
         * group 128, no groupIndex.
         */
        BYTE
    }

    /** A scale a group, no sparsity, for half activations. */
    public CheckpointWeights(
            WeightFormat format,
            int bits,
            int group,
            long n,
            long k,
            Tensor qweight,
            Tensor scales,
            @Nullable Tensor zeros,
            @Nullable Tensor groupIndex) {
        this(format, bits, group, n, k, qweight, scales, zeros, groupIndex, Scaling.GROUP, Sparsity.NONE, Operand.HALF);
    }

    /**
     * With N and K as the shapes tell them; COMPRESSED_TENSORS rounds K up to whole words, so it states its shape
     * itself.
     *
     * @throws ArgumentException if qweight has not rank 2, or the format is COMPRESSED_TENSORS
     */
    public static CheckpointWeights of(
            WeightFormat format,
            int bits,
            int group,
            Tensor qweight,
            Tensor scales,
            @Nullable Tensor zeros,
            @Nullable Tensor groupIndex) {
        if (qweight.rank() != 2) {
            throw new ArgumentException(Status.SHAPE, "pack_weights", qweight.device().backend(),
                    "pack_weights: qweight is " + qweight + "; it must have rank 2");
        }
        var inWord = 32 / bits;
        var rows = qweight.size(0);
        var columns = qweight.size(1);
        return switch (format) {
            case PLAIN -> new CheckpointWeights(format, bits, group, rows, columns, qweight, scales, zeros, groupIndex);
            case GPTQ_V1, GPTQ_V2, GPTQ_AUTO ->
                new CheckpointWeights(format, bits, group, columns, rows * inWord, qweight, scales, zeros, groupIndex);
            case AWQ ->
                new CheckpointWeights(format, bits, group, columns * inWord, rows, qweight, scales, zeros, groupIndex);
            case COMPRESSED_TENSORS -> throw new ArgumentException(Status.SHAPE, "pack_weights",
                    qweight.device().backend(),
                    "pack_weights: the shape of compressed-tensors weights is that of weight_shape; give N and K");
        };
    }

    /** The same with scales of another kind. */
    public CheckpointWeights withScaling(Scaling value) {
        return new CheckpointWeights(
                format, bits, group, n, k, qweight, scales, zeros, groupIndex, value, sparsity, operand);
    }

    /** The same with the weights' sparsity. */
    public CheckpointWeights withSparsity(Sparsity value) {
        return new CheckpointWeights(
                format, bits, group, n, k, qweight, scales, zeros, groupIndex, scaling, value, operand);
    }

    /** The same for other activations. */
    public CheckpointWeights withOperand(Operand value) {
        return new CheckpointWeights(
                format, bits, group, n, k, qweight, scales, zeros, groupIndex, scaling, sparsity, value);
    }

    /** Writes the struct of an operator call on {@code stream}; the tensors are its outputs or its inputs. */
    MemorySegment describe(Stream stream, boolean output) {
        var struct = stream.nested();
        fill(struct,
                output ? stream.out(qweight, "qweight") : stream.in(qweight, "qweight"),
                output ? stream.out(scales, "scales") : stream.in(scales, "scales"),
                output ? stream.optionalOut(zeros, "zeros") : stream.optional(zeros, "zeros"),
                output ? stream.optionalOut(groupIndex, "g_idx") : stream.optional(groupIndex, "g_idx"));
        return struct;
    }

    void fill(MemorySegment struct, MemorySegment q, MemorySegment s, MemorySegment z, MemorySegment g) {
        cul_checkpoint.struct_size(struct, (int) cul_checkpoint.sizeof());
        cul_checkpoint.format(struct, format.ordinal());
        cul_checkpoint.bits(struct, bits);
        cul_checkpoint.group(struct, group);
        cul_checkpoint.scaling(struct, scaling.ordinal());
        cul_checkpoint.sparsity(struct, sparsity.ordinal());
        cul_checkpoint.operand(struct, operand.ordinal());
        cul_checkpoint.reserved0(struct, 0);
        cul_checkpoint.n(struct, n);
        cul_checkpoint.k(struct, k);
        cul_checkpoint.qweight(struct, q);
        cul_checkpoint.scales(struct, s);
        cul_checkpoint.zeros(struct, z);
        cul_checkpoint.g_idx(struct, g);
    }

    /** The same in the format that GPTQ_AUTO turned out to be. */
    CheckpointWeights withFormat(WeightFormat resolved) {
        return new CheckpointWeights(
                resolved, bits, group, n, k, qweight, scales, zeros, groupIndex, scaling, sparsity, operand);
    }
}
