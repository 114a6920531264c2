package dev.culebra;

import dev.culebra.CheckpointWeights.Operand;
import dev.culebra.CheckpointWeights.Sparsity;
import dev.culebra.bindings.generated.cul_quantize_weights_args;
import dev.culebra.bindings.generated.cul_unpack_weights_args;
import dev.culebra.bindings.generated.cul_w4a16_gemm_args;
import dev.culebra.bindings.generated.cul_w4a16_sparse24_gemm_args;
import dev.culebra.bindings.generated.cul_w4a8_gemm_args;
import dev.culebra.bindings.generated.cul_w6a16_gemm_args;
import dev.culebra.bindings.generated.cul_w6a8_gemm_args;
import dev.culebra.bindings.generated.cul_w8a16_gemm_args;
import dev.culebra.bindings.generated.culebra_h;
import org.jspecify.annotations.Nullable;

/** Packed weights and products with them. */
abstract class PackedGemmOps extends GemmOps {
    PackedGemmOps() {}

    /**
     * Round-to-nearest quantization: {@code w = (q - z) * s}, with a search in each group for the clipping that
     * minimises the squared error. The last group may be partial; an all-zero group gives exact zeros.
     *
     * @param w [N, K], half or f32
     * @param q u8 [N, K]; the zero point is 2^(bits-1) where symmetric
     * @param scales [N, G], half or f32
     * @param zeros u8 [N, G]; null: symmetric
     * @param bits 4, 6 or 8
     * @param group -1 (one group over all of K), 32, 64 or 128
     */
    public static void quantizeWeights(
            Stream stream,
            Tensor w,
            Tensor q,
            Tensor scales,
            @Nullable Tensor zeros,
            int bits,
            int group) {
        var args = stream.begin("quantize_weights", cul_quantize_weights_args.sizeof());
        try {
            cul_quantize_weights_args.w(args, stream.in(w, "w"));
            cul_quantize_weights_args.q(args, stream.out(q, "q"));
            cul_quantize_weights_args.scales(args, stream.out(scales, "scales"));
            cul_quantize_weights_args.zeros(args, stream.optionalOut(zeros, "zeros"));
            cul_quantize_weights_args.bits(args, bits);
            cul_quantize_weights_args.group(args, group);
            cul_quantize_weights_args.symmetric(args, zeros == null ? 1 : 0);
            while (stream.again(culebra_h.cul_quantize_weights(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Packs a checkpoint's weights for the stream's device; the result belongs to {@code scope}. Waits for the stream
     * where the zero points, the group index or the 2:4 sparsity is to be looked at on the host. The checkpoint may be
     * closed afterwards.
     *
     * @param weights on the stream's device; zeros, groupIndex and 2:4 sparse weights contiguous
     * @throws ArgumentException SHAPE, DTYPE, RANGE or STRIDE for a checkpoint that is not what its record says; RANGE
     *     too for 2:4 sparse weights that are not, with the first row and k
     * @throws MemoryException if there is no memory for the packed weights
     */
    public static PackedWeights packWeights(Stream stream, Scope scope, CheckpointWeights weights) {
        return PackedWeights.pack(stream, scope, weights);
    }

    /**
     * The exact inverse of {@link #packWeights}: fills the tensors of {@code target} bit for bit. Its format may be
     * another one than that of the source; {@link WeightFormat#PLAIN} gives unsigned integers, with zero points and
     * group index in the original order of k.
     *
     * @param target of the packed weights' bits, group, N, K, scaling, sparsity and operand
     * @throws ArgumentException RANGE if target is of other bits, sparsity or operand
     */
    public static void unpackWeights(Stream stream, PackedWeights weights, CheckpointWeights target) {
        var args = stream.begin("unpack_weights", cul_unpack_weights_args.sizeof());
        try {
            PackedWeights.require(stream, weights, target.bits(), target.sparsity(), target.operand());
            cul_unpack_weights_args.checkpoint(args, target.describe(stream, true));
            cul_unpack_weights_args.perm(args, stream.optional(weights.perm(), "perm"));
            cul_unpack_weights_args.group_source(args, stream.optional(weights.groupSource(), "group_source"));
            cul_unpack_weights_args.packed(args, stream.in(weights.packed(), "packed"));
            cul_unpack_weights_args.packed_scales(args, stream.in(weights.scales(), "packed_scales"));
            cul_unpack_weights_args.packed_zeros(args, stream.optional(weights.zeros(), "packed_zeros"));
            cul_unpack_weights_args.packed_group(args, weights.packedGroup());
            while (stream.again(culebra_h.cul_unpack_weights(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code c = epilogue(a w^T + bias)} with 4-bit weights. Any M. Frantar et al., MARLIN,
     * <a href="https://arxiv.org/abs/2408.11743">arXiv:2408.11743</a>.
     *
     * @param a [M, K], half
     * @param w [N, K], 4-bit; its scales may be of the other half type
     * @param bias [N] as a; null: none
     * @param c [M, N] as a, or [M, N/2] with {@link Epilogue#SILU_MUL}; overlaps nothing
     * @throws ArgumentException RANGE if w was packed with other bits, 2:4 sparse or for bytes
     */
    public static void w4a16Gemm(
            Stream stream,
            Tensor a,
            PackedWeights w,
            @Nullable Tensor bias,
            Tensor c,
            Epilogue epilogue) {
        var args = stream.begin("w4a16_gemm", cul_w4a16_gemm_args.sizeof());
        try {
            PackedWeights.require(stream, w, 4, Sparsity.NONE, Operand.HALF);
            cul_w4a16_gemm_args.a(args, stream.in(a, "a"));
            cul_w4a16_gemm_args.packed(args, stream.in(w.packed(), "packed"));
            cul_w4a16_gemm_args.packed_scales(args, stream.in(w.scales(), "packed_scales"));
            cul_w4a16_gemm_args.packed_zeros(args, stream.optional(w.zeros(), "packed_zeros"));
            cul_w4a16_gemm_args.perm(args, stream.optional(w.perm(), "perm"));
            cul_w4a16_gemm_args.bias(args, stream.optional(bias, "bias"));
            cul_w4a16_gemm_args.c(args, stream.out(c, "c"));
            cul_w4a16_gemm_args.n(args, w.n());
            cul_w4a16_gemm_args.k(args, w.k());
            cul_w4a16_gemm_args.packed_group(args, w.packedGroup());
            cul_w4a16_gemm_args.epilogue(args, epilogue.ordinal());
            while (stream.again(culebra_h.cul_w4a16_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code c = epilogue(a w^T + bias)} with 4-bit weights of which two in four are zero: half the operations, and
     * three quarters of the bytes, of {@link #w4a16Gemm}. Any M. Frantar et al., MARLIN,
     * <a href="https://arxiv.org/abs/2408.11743">arXiv:2408.11743</a>, section 5.
     *
     * @param a [M, K], half
     * @param w [N, K], packed with {@link Sparsity#TWO_OF_FOUR}; its scales may be of the other half type
     * @param bias [N] as a; null: none
     * @param c [M, N] as a, or [M, N/2] with {@link Epilogue#SILU_MUL}; overlaps nothing
     * @throws ArgumentException RANGE if w was packed dense or with other bits
     */
    public static void w4a16Sparse24Gemm(
            Stream stream,
            Tensor a,
            PackedWeights w,
            @Nullable Tensor bias,
            Tensor c,
            Epilogue epilogue) {
        var args = stream.begin("w4a16_sparse24_gemm", cul_w4a16_sparse24_gemm_args.sizeof());
        try {
            PackedWeights.require(stream, w, 4, Sparsity.TWO_OF_FOUR, Operand.HALF);
            cul_w4a16_sparse24_gemm_args.a(args, stream.in(a, "a"));
            cul_w4a16_sparse24_gemm_args.packed(args, stream.in(w.packed(), "packed"));
            cul_w4a16_sparse24_gemm_args.packed_scales(args, stream.in(w.scales(), "packed_scales"));
            cul_w4a16_sparse24_gemm_args.bias(args, stream.optional(bias, "bias"));
            cul_w4a16_sparse24_gemm_args.c(args, stream.out(c, "c"));
            cul_w4a16_sparse24_gemm_args.n(args, w.n());
            cul_w4a16_sparse24_gemm_args.k(args, w.k());
            cul_w4a16_sparse24_gemm_args.packed_group(args, w.packedGroup());
            cul_w4a16_sparse24_gemm_args.epilogue(args, epilogue.ordinal());
            while (stream.again(culebra_h.cul_w4a16_sparse24_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code c = epilogue(a w^T + bias)} with 8-bit weights: integers, with or without zero points, or f8e4m3. Any M.
     *
     * @param a [M, K], half
     * @param w [N, K], 8-bit, scaled by group or {@link CheckpointWeights.Scaling#BLOCK128}; scales of groups may be of
     *     the other half type
     * @param bias [N] as a; null: none
     * @param c [M, N] as a, or [M, N/2] with {@link Epilogue#SILU_MUL}; overlaps nothing
     * @throws ArgumentException RANGE if w was packed with other bits
     */
    public static void w8a16Gemm(
            Stream stream,
            Tensor a,
            PackedWeights w,
            @Nullable Tensor bias,
            Tensor c,
            Epilogue epilogue) {
        var args = stream.begin("w8a16_gemm", cul_w8a16_gemm_args.sizeof());
        try {
            PackedWeights.require(stream, w, 8, Sparsity.NONE, Operand.HALF);
            cul_w8a16_gemm_args.a(args, stream.in(a, "a"));
            cul_w8a16_gemm_args.packed(args, stream.in(w.packed(), "packed"));
            cul_w8a16_gemm_args.packed_scales(args, stream.in(w.scales(), "packed_scales"));
            cul_w8a16_gemm_args.packed_zeros(args, stream.optional(w.zeros(), "packed_zeros"));
            cul_w8a16_gemm_args.perm(args, stream.optional(w.perm(), "perm"));
            cul_w8a16_gemm_args.bias(args, stream.optional(bias, "bias"));
            cul_w8a16_gemm_args.c(args, stream.out(c, "c"));
            cul_w8a16_gemm_args.n(args, w.n());
            cul_w8a16_gemm_args.k(args, w.k());
            cul_w8a16_gemm_args.packed_group(args, w.packedGroup());
            cul_w8a16_gemm_args.epilogue(args, epilogue.ordinal());
            while (stream.again(culebra_h.cul_w8a16_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code c = epilogue(a w^T + bias)} with symmetric 6-bit weights in groups of 128; six bits a weight are read, not
     * eight. Any M. FlexQ, <a href="https://arxiv.org/abs/2508.04405">arXiv:2508.04405</a>.
     *
     * @param a [M, K], half
     * @param w [N, K], 6-bit, symmetric, group 128; its scales may be of the other half type
     * @param bias [N] as a; null: none
     * @param c [M, N] as a, or [M, N/2] with {@link Epilogue#SILU_MUL}; overlaps nothing
     * @throws ArgumentException RANGE if w was packed with other bits, in other groups or for bytes
     */
    public static void w6a16Gemm(
            Stream stream,
            Tensor a,
            PackedWeights w,
            @Nullable Tensor bias,
            Tensor c,
            Epilogue epilogue) {
        var args = stream.begin("w6a16_gemm", cul_w6a16_gemm_args.sizeof());
        try {
            PackedWeights.require(stream, w, 6, Sparsity.NONE, Operand.HALF);
            cul_w6a16_gemm_args.a(args, stream.in(a, "a"));
            cul_w6a16_gemm_args.packed(args, stream.in(w.packed(), "packed"));
            cul_w6a16_gemm_args.packed_scales(args, stream.in(w.scales(), "packed_scales"));
            cul_w6a16_gemm_args.bias(args, stream.optional(bias, "bias"));
            cul_w6a16_gemm_args.c(args, stream.out(c, "c"));
            cul_w6a16_gemm_args.n(args, w.n());
            cul_w6a16_gemm_args.k(args, w.k());
            cul_w6a16_gemm_args.packed_group(args, w.packedGroup());
            cul_w6a16_gemm_args.epilogue(args, epilogue.ordinal());
            while (stream.again(culebra_h.cul_w6a16_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code c = epilogue((a aScale) w^T + bias)} with 8-bit integer activations and symmetric 6-bit weights in groups
     * of 128. The sums of a group are exact in 32-bit integers. Any M. FlexQ,
     * <a href="https://arxiv.org/abs/2508.04405">arXiv:2508.04405</a>.
     *
     * @param a i8 [M, K], as {@link #quantizeActivations} makes it
     * @param aScale f32 [M]: its scales, reshaped
     * @param w [N, K], 6-bit, symmetric, group 128, packed for {@link Operand#BYTE}
     * @param bias [N] as c; null: none
     * @param c [M, N], half, or [M, N/2] with {@link Epilogue#SILU_MUL}; overlaps nothing
     * @throws ArgumentException RANGE if w was packed with other bits or for half activations
     */
    public static void w6a8Gemm(
            Stream stream,
            Tensor a,
            Tensor aScale,
            PackedWeights w,
            @Nullable Tensor bias,
            Tensor c,
            Epilogue epilogue) {
        var args = stream.begin("w6a8_gemm", cul_w6a8_gemm_args.sizeof());
        try {
            PackedWeights.require(stream, w, 6, Sparsity.NONE, Operand.BYTE);
            cul_w6a8_gemm_args.a(args, stream.in(a, "a"));
            cul_w6a8_gemm_args.a_scale(args, stream.in(aScale, "a_scale"));
            cul_w6a8_gemm_args.packed(args, stream.in(w.packed(), "packed"));
            cul_w6a8_gemm_args.packed_scales(args, stream.in(w.scales(), "packed_scales"));
            cul_w6a8_gemm_args.bias(args, stream.optional(bias, "bias"));
            cul_w6a8_gemm_args.c(args, stream.out(c, "c"));
            cul_w6a8_gemm_args.n(args, w.n());
            cul_w6a8_gemm_args.k(args, w.k());
            cul_w6a8_gemm_args.epilogue(args, epilogue.ordinal());
            while (stream.again(culebra_h.cul_w6a8_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code c = epilogue((a aScale) w^T)} with {@code w = q groupScale channelScale}: f8e4m3 activations and 4-bit
     * weights whose scales have two levels; {@code q groupScale} is rounded to f8e4m3. Any M. cuda: sm_90. FireQ,
     * <a href="https://arxiv.org/abs/2505.20839">arXiv:2505.20839</a>.
     *
     * @param a f8e4m3 [M, K], as {@link #quantizeActivations} makes it
     * @param aScale f32 [M]: its scales, reshaped
     * @param w [N, K], 4-bit, symmetric, group 128, scales f8e4m3, packed for {@link Operand#BYTE}
     * @param channelScale f32 [N]
     * @param c [M, N], half, or [M, N/2] with {@link Epilogue#SILU_MUL}; overlaps nothing
     * @param epilogue NONE or SILU_MUL
     * @throws ArgumentException RANGE if w was packed with other bits or for half activations, or for another epilogue
     */
    public static void w4a8Gemm(
            Stream stream,
            Tensor a,
            Tensor aScale,
            PackedWeights w,
            Tensor channelScale,
            Tensor c,
            Epilogue epilogue) {
        var args = stream.begin("w4a8_gemm", cul_w4a8_gemm_args.sizeof());
        try {
            PackedWeights.require(stream, w, 4, Sparsity.NONE, Operand.BYTE);
            cul_w4a8_gemm_args.a(args, stream.in(a, "a"));
            cul_w4a8_gemm_args.a_scale(args, stream.in(aScale, "a_scale"));
            cul_w4a8_gemm_args.packed(args, stream.in(w.packed(), "packed"));
            cul_w4a8_gemm_args.packed_scales(args, stream.in(w.scales(), "packed_scales"));
            cul_w4a8_gemm_args.channel_scale(args, stream.in(channelScale, "channel_scale"));
            cul_w4a8_gemm_args.c(args, stream.out(c, "c"));
            cul_w4a8_gemm_args.n(args, w.n());
            cul_w4a8_gemm_args.k(args, w.k());
            cul_w4a8_gemm_args.epilogue(args, epilogue.ordinal());
            while (stream.again(culebra_h.cul_w4a8_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
