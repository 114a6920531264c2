package dev.culebra;

import dev.culebra.bindings.generated.cul_checkpoint;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * A quantized weight matrix [N, K] as a checkpoint stores it: {@code w = (q - z) * s}. G is the number of groups, 1 for
 * group -1.
 *
 * @param format decides the shapes below
 * @param bits 4 or 8; PLAIN also 6
 * @param group rows of k that share a scale: -1 (all), 32, 64 or 128
 * @param n the matrix's output features
 * @param k its input features
 * @param qweight GPTQ: i32 [K bits/32, N]; AWQ: i32 [K, N bits/32]; COMPRESSED_TENSORS: i32 [N, ceil(K bits/32)];
 *     PLAIN: u8, or i8 with zero points of 0, [N, K]
 * @param scales GPTQ, AWQ: f16 [G, N]; COMPRESSED_TENSORS, PLAIN: half [N, G]
 * @param zeros GPTQ, AWQ: i32 [G, N bits/32]; COMPRESSED_TENSORS: i32 [ceil(N bits/32), G]; PLAIN: [N, G] as qweight;
 *     the last two may be null: symmetric
 * @param groupIndex i32 [K], the group of each k (act-order); null: k / group
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
        @Nullable Tensor groupIndex) {

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
        cul_checkpoint.n(struct, n);
        cul_checkpoint.k(struct, k);
        cul_checkpoint.qweight(struct, q);
        cul_checkpoint.scales(struct, s);
        cul_checkpoint.zeros(struct, z);
        cul_checkpoint.g_idx(struct, g);
    }

    /** The same in the format that GPTQ_AUTO turned out to be. */
    CheckpointWeights withFormat(WeightFormat resolved) {
        return new CheckpointWeights(resolved, bits, group, n, k, qweight, scales, zeros, groupIndex);
    }
}
