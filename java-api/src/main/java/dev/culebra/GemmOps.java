package dev.culebra;

import dev.culebra.bindings.generated.cul_gemm_args;
import dev.culebra.bindings.generated.cul_quantize_weights_args;
import dev.culebra.bindings.generated.cul_unpack_weights_args;
import dev.culebra.bindings.generated.cul_w4a16_gemm_args;
import dev.culebra.bindings.generated.culebra_h;
import org.jspecify.annotations.Nullable;

/** Matrix products. */
abstract class GemmOps {
    GemmOps() {}

    /**
     * {@code c = act(a b^T + bias)}. Accumulates in f32; f32 inputs use no TF32.
     *
     * @param a [M, K], half or f32
     * @param b [N, K] as a
     * @param bias [N] as a; null: none
     * @param c [M, N], half or f32; overlaps nothing
     */
    public static void gemm(Stream stream, Tensor a, Tensor b, @Nullable Tensor bias, Tensor c, Activation act) {
        var args = stream.begin("gemm", cul_gemm_args.sizeof());
        try {
            cul_gemm_args.a(args, stream.in(a, "a"));
            cul_gemm_args.b(args, stream.in(b, "b"));
            cul_gemm_args.bias(args, stream.optional(bias, "bias"));
            cul_gemm_args.c(args, stream.out(c, "c"));
            cul_gemm_args.act(args, act.ordinal());
            while (stream.again(culebra_h.cul_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

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
     * {@code c = epilogue(a w^T + bias)} with 4-bit weights. Any M. Frantar et al., MARLIN,
     * <a href="https://arxiv.org/abs/2408.11743">arXiv:2408.11743</a>.
     *
     * @param a [M, K], half
     * @param w [N, K], 4-bit; its scales may be of the other half type
     * @param bias [N] as a; null: none
     * @param c [M, N] as a, or [M, N/2] with {@link Epilogue#SILU_MUL}; overlaps nothing
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
     * Packs a checkpoint's weights for the stream's device; the result belongs to {@code scope}. Waits for the stream:
     * its zero points and group index are looked at on the host. The checkpoint may be closed afterwards.
     *
     * @param weights on the stream's device
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
     * @param target of the packed weights' bits, group, N and K
     */
    public static void unpackWeights(Stream stream, PackedWeights weights, CheckpointWeights target) {
        var args = stream.begin("unpack_weights", cul_unpack_weights_args.sizeof());
        try {
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
}
