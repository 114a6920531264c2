package dev.culebra;

import dev.culebra.bindings.generated.cul_estimated_sparse_attention_args;
import dev.culebra.bindings.generated.cul_sparse_linear_attention_args;
import dev.culebra.bindings.generated.culebra_h;
import org.jspecify.annotations.Nullable;

/** Attention to the blocks of keys that an estimate of the scores chooses. */
abstract class EstimatedAttentionOps extends KvCacheOps {
    EstimatedAttentionOps() {}

    /**
     * Sparse-linear attention: {@code o = O_s + proj_w O_l + proj_b}. O_s is softmax attention to a query block's critical key
     * blocks alone, O_l linear attention {@code phi(q) sum phi(k) v / (phi(q) . sum phi(k) + eps)} to the blocks that the options
     * name, 0 where there are none. Blocks are ranked by the products of their mean queries and keys, ties to the lower block.
     * SLA, <a href="https://arxiv.org/abs/2509.24006">arXiv:2509.24006</a>.
     *
     * @param q [B, H, L, D], half or f32, D up to 256
     * @param k as q
     * @param v as q
     * @param projection [D, D] as q: out, in; null: O_l as it is
     * @param projectionBias [D] as q; null: none
     * @param o as q; no other operand's memory
     * @param options blocks and their classes
     */
    public static void sparseLinearAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            @Nullable Tensor projection,
            @Nullable Tensor projectionBias,
            Tensor o,
            SparseLinearOptions options) {
        var args = stream.begin("sparse_linear_attention", cul_sparse_linear_attention_args.sizeof());
        try {
            cul_sparse_linear_attention_args.q(args, stream.in(q, "q"));
            cul_sparse_linear_attention_args.k(args, stream.in(k, "k"));
            cul_sparse_linear_attention_args.v(args, stream.in(v, "v"));
            cul_sparse_linear_attention_args.proj_w(args, stream.optional(projection, "proj_w"));
            cul_sparse_linear_attention_args.proj_b(args, stream.optional(projectionBias, "proj_b"));
            cul_sparse_linear_attention_args.o(args, stream.out(o, "o"));
            cul_sparse_linear_attention_args.critical(args, options.critical());
            cul_sparse_linear_attention_args.negligible(args, options.negligible());
            cul_sparse_linear_attention_args.eps(args, options.eps());
            cul_sparse_linear_attention_args.scale(args, options.scale());
            cul_sparse_linear_attention_args.block(args, options.block());
            cul_sparse_linear_attention_args.phi(args, options.phi().ordinal());
            cul_sparse_linear_attention_args.mode(args, options.mode().ordinal());
            while (stream.again(culebra_h.cul_sparse_linear_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Causal attention over packed sequences to the key blocks that matter by an estimate: per query block the first and last
     * ones always, another iff some estimated score s in it exceeds {@code m + ln(tau l)}, with m and l the row's maximum and sum of
     * {@code e^(s - m)} over the former. Row i stands at position i + Lk - Lq. A row that sees no key gives 0, and lse -inf. SALE, <a
     * href="https://arxiv.org/abs/2505.24179">arXiv:2505.24179</a>.
     *
     * @param q [Tq, Hq, D], half or f32, D and Dv up to 256
     * @param k [Tk, Hkv, D] as q
     * @param v [Tk, Hkv, Dv] as q
     * @param cuQ i32 [B+1]: where the sequences' queries begin
     * @param cuK i32 [B+1]: where their keys begin
     * @param tau f32 [Hq], a head's threshold; 0 or less: a dense head
     * @param o [Tq, Hq, Dv] as q; no other operand's memory
     * @param lse f32 [Tq, Hq], the natural log of the sum of exponentials over what is computed; null: not wanted
     * @param kept i64 [Hq]: the pairs of blocks that were computed; null: not wanted
     * @param options blocks, what is certain, the estimate
     */
    public static void estimatedSparseAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor cuQ,
            Tensor cuK,
            Tensor tau,
            Tensor o,
            @Nullable Tensor lse,
            @Nullable Tensor kept,
            EstimatedSparseOptions options) {
        var args = stream.begin("estimated_sparse_attention", cul_estimated_sparse_attention_args.sizeof());
        try {
            cul_estimated_sparse_attention_args.q(args, stream.in(q, "q"));
            cul_estimated_sparse_attention_args.k(args, stream.in(k, "k"));
            cul_estimated_sparse_attention_args.v(args, stream.in(v, "v"));
            cul_estimated_sparse_attention_args.cu_q(args, stream.in(cuQ, "cu_q"));
            cul_estimated_sparse_attention_args.cu_k(args, stream.in(cuK, "cu_k"));
            cul_estimated_sparse_attention_args.tau(args, stream.in(tau, "tau"));
            cul_estimated_sparse_attention_args.o(args, stream.out(o, "o"));
            cul_estimated_sparse_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_estimated_sparse_attention_args.kept(args, stream.optionalOut(kept, "kept"));
            cul_estimated_sparse_attention_args.scale(args, options.scale());
            cul_estimated_sparse_attention_args.block_q(args, options.blockQ());
            cul_estimated_sparse_attention_args.block_k(args, options.blockK());
            cul_estimated_sparse_attention_args.sink(args, options.sink());
            cul_estimated_sparse_attention_args.local(args, options.local());
            cul_estimated_sparse_attention_args.est(args, options.estimate().ordinal());
            cul_estimated_sparse_attention_args.dense_length(args, options.denseLength());
            while (stream.again(culebra_h.cul_estimated_sparse_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
