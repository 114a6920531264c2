package dev.culebra;

import dev.culebra.bindings.generated.cul_fp8_gemm_args;
import dev.culebra.bindings.generated.cul_gemm_args;
import dev.culebra.bindings.generated.cul_linear_logprob_args;
import dev.culebra.bindings.generated.cul_quantize_activations_args;
import dev.culebra.bindings.generated.cul_sparse_mlp_args;
import dev.culebra.bindings.generated.culebra_h;
import org.jspecify.annotations.Nullable;

/** Products of matrices as they are, and what goes with them. */
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
     * {@code q = x / scale}, rounded to nearest even and saturated, with {@code scale = max(amax / qmax, 1e-12)} of a
     * row or of 128 values of a row, qmax 127 (i8) or 448 (f8e4m3).
     *
     * @param x [M, K], half or f32
     * @param scale f32 [1] with {@link QuantizeMode#STATIC}, where integers saturate at -128; else null
     * @param q [M, K], i8 or f8e4m3; overlaps nothing
     * @param scales f32, [M, 1] with {@link QuantizeMode#PER_TOKEN}, [M, ceil(K/128)] with {@link
     *     QuantizeMode#PER_BLOCK128}; else null
     * @param mode which values share a scale
     */
    public static void quantizeActivations(
            Stream stream, Tensor x, @Nullable Tensor scale, Tensor q, @Nullable Tensor scales, QuantizeMode mode) {
        var args = stream.begin("quantize_activations", cul_quantize_activations_args.sizeof());
        try {
            cul_quantize_activations_args.x(args, stream.in(x, "x"));
            cul_quantize_activations_args.scale(args, stream.optional(scale, "scale"));
            cul_quantize_activations_args.q(args, stream.out(q, "q"));
            cul_quantize_activations_args.scales(args, stream.optionalOut(scales, "scales"));
            cul_quantize_activations_args.mode(args, mode.ordinal());
            while (stream.again(culebra_h.cul_quantize_activations(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code c = (a aScale) (b bScale)^T + bias} with 8-bit floats. At most 128 products are summed before they are
     * added in f32. cuda: sm_90.
     *
     * @param a f8e4m3 [M, K], K a multiple of 16
     * @param b f8e4m3 [N, K]
     * @param aScale f32: [1], [M, 1] or [M, ceil(K/128)], by {@code scaling}
     * @param bScale f32: [1], [N, 1] or [ceil(N/128), ceil(K/128)]
     * @param bias [N] as c; null: none
     * @param c [M, N], half or f32; overlaps nothing
     * @param scaling what the scales belong to
     */
    public static void fp8Gemm(
            Stream stream,
            Tensor a,
            Tensor b,
            Tensor aScale,
            Tensor bScale,
            @Nullable Tensor bias,
            Tensor c,
            Fp8Scaling scaling) {
        var args = stream.begin("fp8_gemm", cul_fp8_gemm_args.sizeof());
        try {
            cul_fp8_gemm_args.a(args, stream.in(a, "a"));
            cul_fp8_gemm_args.b(args, stream.in(b, "b"));
            cul_fp8_gemm_args.a_scale(args, stream.in(aScale, "a_scale"));
            cul_fp8_gemm_args.b_scale(args, stream.in(bScale, "b_scale"));
            cul_fp8_gemm_args.bias(args, stream.optional(bias, "bias"));
            cul_fp8_gemm_args.c(args, stream.out(c, "c"));
            cul_fp8_gemm_args.scaling(args, scaling.ordinal());
            while (stream.again(culebra_h.cul_fp8_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code h = silu(x wGate^T)}, {@code y = (h [|h| >= threshold] (x wUp^T)) wDownT}, each row on its own. Rows of
     * wUp and wDownT that no row of x needs are not read. Lee et al., CATS,
     * <a href="https://arxiv.org/abs/2404.08763">arXiv:2404.08763</a>.
     *
     * @param x [B, D], half, B up to 4
     * @param wGate [I, D] as x
     * @param wUp [I, D] as x
     * @param wDownT [I, D] as x: the transpose of the down projection
     * @param y [B, D] as x; overlaps nothing
     * @param active i32 [B], the rows of wUp that each row of x took; null: not asked for
     * @param threshold at least 0; 0 takes every row
     */
    public static void sparseMlp(
            Stream stream,
            Tensor x,
            Tensor wGate,
            Tensor wUp,
            Tensor wDownT,
            Tensor y,
            @Nullable Tensor active,
            float threshold) {
        var args = stream.begin("sparse_mlp", cul_sparse_mlp_args.sizeof());
        try {
            cul_sparse_mlp_args.x(args, stream.in(x, "x"));
            cul_sparse_mlp_args.w_gate(args, stream.in(wGate, "w_gate"));
            cul_sparse_mlp_args.w_up(args, stream.in(wUp, "w_up"));
            cul_sparse_mlp_args.w_down_t(args, stream.in(wDownT, "w_down_t"));
            cul_sparse_mlp_args.y(args, stream.out(y, "y"));
            cul_sparse_mlp_args.active(args, stream.optionalOut(active, "active"));
            cul_sparse_mlp_args.threshold(args, threshold);
            while (stream.again(culebra_h.cul_sparse_mlp(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code lse = log sum_v exp(z_v)}, {@code logprob = z_target - lse}, {@code z = softcap(e c^T + bias)}, without
     * storing z: scratch is O(N). Target t is row {@code t - vocabStart} of c; a target that is not there gives -inf,
     * so that shards of a vocabulary merge by adding {@code exp(lse)} and {@code exp(logprob + lse)}; the ignored index
     * gives 0. Wijmans et al., Cut Your Losses, <a href="https://arxiv.org/abs/2411.09009">arXiv:2411.09009</a>.
     *
     * @param e [N, D], half or f32
     * @param c [V, D] as e
     * @param bias [V] as e, -inf masks a word, softcap or not; null: none
     * @param targets i64 [N]
     * @param logprob f32 [N]; overlaps nothing
     * @param lse f32 [N]; overlaps nothing
     * @param options softcap, ignored index, first word
     */
    public static void linearLogprob(
            Stream stream,
            Tensor e,
            Tensor c,
            @Nullable Tensor bias,
            Tensor targets,
            Tensor logprob,
            Tensor lse,
            LogprobOptions options) {
        var args = stream.begin("linear_logprob", cul_linear_logprob_args.sizeof());
        try {
            cul_linear_logprob_args.e(args, stream.in(e, "e"));
            cul_linear_logprob_args.c(args, stream.in(c, "c"));
            cul_linear_logprob_args.bias(args, stream.optional(bias, "bias"));
            cul_linear_logprob_args.targets(args, stream.in(targets, "targets"));
            cul_linear_logprob_args.logprob(args, stream.out(logprob, "logprob"));
            cul_linear_logprob_args.lse(args, stream.out(lse, "lse"));
            cul_linear_logprob_args.ignore_index(args, options.ignoreIndex());
            cul_linear_logprob_args.vocab_start(args, options.vocabStart());
            cul_linear_logprob_args.softcap(args, options.softcap());
            while (stream.again(culebra_h.cul_linear_logprob(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
