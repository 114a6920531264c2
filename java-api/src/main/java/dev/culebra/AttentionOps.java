package dev.culebra;

import dev.culebra.bindings.generated.cul_attention_args;
import dev.culebra.bindings.generated.cul_merge_states_args;
import dev.culebra.bindings.generated.cul_mla_attention_args;
import dev.culebra.bindings.generated.cul_paged_append_args;
import dev.culebra.bindings.generated.cul_paged_attention_args;
import dev.culebra.bindings.generated.culebra_h;
import org.jspecify.annotations.Nullable;

/** Softmax attention. */
abstract class AttentionOps extends LinearAttentionOps {
    AttentionOps() {}

    /**
     * Softmax attention over packed sequences; row i of a sequence stands at position i + Lk - Lq. Per score: scale,
     * softcap, mask, softmax with {@code exp(sink)} in the denominator. Query head h reads KV head h / (Hq / Hkv). A
     * row that sees no key gives 0, and lse -inf. Dao, FlashAttention-2, <a
     * href="https://arxiv.org/abs/2307.08691">arXiv:2307.08691</a>.
     *
     * <p>Keys and values that no row of a sequence sees may hold anything. A NaN or infinity in a value shows in the
     * rows that see it; on cuda it may reach rows of the same sequence and KV head that do not.
     *
     * @param q [Tq, Hq, D], half or f32
     * @param k [Tk, Hkv, D] as q
     * @param v [Tk, Hkv, Dv] as q
     * @param cuQ i32 [B+1]: where the sequences' queries begin, from 0 to Tq
     * @param cuK i32 [B+1]: where their keys begin
     * @param sink f32 [Hq]; null: none
     * @param o [Tq, Hq, Dv] as q
     * @param lse f32 [Tq, Hq], the natural log of the sum of exponentials, without the sink; null: not wanted
     * @param options scale, mask, softcap
     */
    public static void attention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor cuQ,
            Tensor cuK,
            @Nullable Tensor sink,
            Tensor o,
            @Nullable Tensor lse,
            AttentionOptions options) {
        var args = stream.begin("attention", cul_attention_args.sizeof());
        try {
            cul_attention_args.q(args, stream.in(q, "q"));
            cul_attention_args.k(args, stream.in(k, "k"));
            cul_attention_args.v(args, stream.in(v, "v"));
            cul_attention_args.cu_q(args, stream.in(cuQ, "cu_q"));
            cul_attention_args.cu_k(args, stream.in(cuK, "cu_k"));
            cul_attention_args.sink(args, stream.optional(sink, "sink"));
            cul_attention_args.o(args, stream.out(o, "o"));
            cul_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_attention_args.scale(args, options.scale());
            cul_attention_args.softcap(args, options.softcap());
            cul_attention_args.causal(args, options.causal() ? 1 : 0);
            cul_attention_args.window_left(args, options.windowLeft());
            cul_attention_args.window_right(args, options.windowRight());
            while (stream.again(culebra_h.cul_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Attention of up to 16 new tokens a sequence over a paged cache, for decoding. Kwon et al., PagedAttention,
     * <a href="https://arxiv.org/abs/2309.06180">arXiv:2309.06180</a>.
     *
     * @param q [B, Sq, Hq, D], half or f32, Sq up to 16
     * @param cache pages of keys and values
     * @param pageTable i32 [B, maxP]: a sequence's pages in order; entries that nothing is read from may be -1
     * @param kvLen i32 [B]: the tokens of each sequence, the Sq new ones included
     * @param sink f32 [Hq]; null: none
     * @param o as q
     * @param lse f32 [B, Sq, Hq]; null: not wanted
     * @param options scale, mask, softcap, split
     */
    public static void pagedAttention(
            Stream stream,
            Tensor q,
            PagedCache cache,
            Tensor pageTable,
            Tensor kvLen,
            @Nullable Tensor sink,
            Tensor o,
            @Nullable Tensor lse,
            AttentionOptions options) {
        var args = stream.begin("paged_attention", cul_paged_attention_args.sizeof());
        try {
            cul_paged_attention_args.q(args, stream.in(q, "q"));
            cul_paged_attention_args.k_cache(args, stream.in(cache.k(), "k_cache"));
            cul_paged_attention_args.v_cache(args, stream.in(cache.v(), "v_cache"));
            cul_paged_attention_args.k_scale(args, stream.optional(cache.kScale(), "k_scale"));
            cul_paged_attention_args.v_scale(args, stream.optional(cache.vScale(), "v_scale"));
            cul_paged_attention_args.page_table(args, stream.in(pageTable, "page_table"));
            cul_paged_attention_args.kv_len(args, stream.in(kvLen, "kv_len"));
            cul_paged_attention_args.sink(args, stream.optional(sink, "sink"));
            cul_paged_attention_args.o(args, stream.out(o, "o"));
            cul_paged_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_paged_attention_args.scale(args, options.scale());
            cul_paged_attention_args.softcap(args, options.softcap());
            cul_paged_attention_args.causal(args, options.causal() ? 1 : 0);
            cul_paged_attention_args.window_left(args, options.windowLeft());
            cul_paged_attention_args.window_right(args, options.windowRight());
            cul_paged_attention_args.split_kv_tokens(args, options.splitKvTokens());
            while (stream.again(culebra_h.cul_paged_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Writes keys and values into a paged cache, at slot = page * page size + offset, turning the first R channels of
     * the keys first where rotary tables are given. Into f8 caches: round(x / scale) to nearest even, saturating.
     *
     * @param k [T, Hkv, D], half or f32
     * @param v [T, Hkv, Dv] as k
     * @param slot i64 [T]; -1 skips a token
     * @param rotary cosines and sines f32 [T, R/2] of each token's own position; null: keys are taken as they are
     * @param cache what is written
     */
    public static void pagedAppend(
            Stream stream,
            Tensor k,
            Tensor v,
            Tensor slot,
            @Nullable RotaryTables rotary,
            PagedCache cache) {
        var args = stream.begin("paged_append", cul_paged_append_args.sizeof());
        try {
            cul_paged_append_args.k(args, stream.in(k, "k"));
            cul_paged_append_args.v(args, stream.in(v, "v"));
            cul_paged_append_args.slot(args, stream.in(slot, "slot"));
            cul_paged_append_args.cos(args, stream.optional(rotary == null ? null : rotary.cos(), "cos"));
            cul_paged_append_args.sin(args, stream.optional(rotary == null ? null : rotary.sin(), "sin"));
            cul_paged_append_args.k_scale(args, stream.optional(cache.kScale(), "k_scale"));
            cul_paged_append_args.v_scale(args, stream.optional(cache.vScale(), "v_scale"));
            cul_paged_append_args.k_cache(args, stream.out(cache.k(), "k_cache"));
            cul_paged_append_args.v_cache(args, stream.out(cache.v(), "v_cache"));
            cul_paged_append_args.interleaved(args, rotary != null && rotary.interleaved() ? 1 : 0);
            while (stream.again(culebra_h.cul_paged_append(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code mergedO = sum_i e^(lse_i - mergedLse) o_i}, {@code mergedLse = ln sum_i e^lse_i}: attention over the union of n disjoint
     * sets of keys, from attention over each. Associative; a state with lse -inf counts for nothing, whatever its o holds, and
     * where there is no other mergedO = 0, mergedLse = -inf. Outputs do not overlap inputs. Milakov and Gimelshein, <a
     * href="https://arxiv.org/abs/1805.02867">arXiv:1805.02867</a>.
     *
     * @param o [n, T, H, D], half or f32
     * @param lse f32 [n, T, H], natural logarithms, without a sink
     * @param mergedO [T, H, D] as o
     * @param mergedLse f32 [T, H]; null: not wanted
     */
    public static void mergeStates(Stream stream, Tensor o, Tensor lse, Tensor mergedO, @Nullable Tensor mergedLse) {
        var args = stream.begin("merge_states", cul_merge_states_args.sizeof());
        try {
            cul_merge_states_args.o(args, stream.in(o, "o"));
            cul_merge_states_args.lse(args, stream.in(lse, "lse"));
            cul_merge_states_args.merged_o(args, stream.out(mergedO, "merged_o"));
            cul_merge_states_args.merged_lse(args, stream.optionalOut(mergedLse, "merged_lse"));
            while (stream.again(culebra_h.cul_merge_states(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Attention of all heads over one latent cache: keys are its 576 channels, values the first 512 of them, as multi-head latent
     * attention has it once its projections are absorbed. Per score: scale, mask, softmax with {@code exp(sink)} in the
     * denominator. A row that sees no token gives 0, and lse -inf. DeepSeek-V2, <a
     * href="https://arxiv.org/abs/2405.04434">arXiv:2405.04434</a>.
     *
     * @param q [B, Sq, Hq, 576], half or f32
     * @param cache [P, page, 576] as q, or u8 [P, page, 656]: 512 f8e4m3, 4 f32 scales of 128 channels each, 64 bf16
     * @param tokens which tokens are read: pages, or a list for each query
     * @param sink f32 [Hq]; null: none
     * @param o [B, Sq, Hq, 512] as q
     * @param lse f32 [B, Sq, Hq], the natural log of the sum of exponentials, without the sink; null: not wanted
     * @param options scale, mask, split
     */
    public static void mlaAttention(
            Stream stream,
            Tensor q,
            Tensor cache,
            LatentTokens tokens,
            @Nullable Tensor sink,
            Tensor o,
            @Nullable Tensor lse,
            MlaOptions options) {
        var args = stream.begin("mla_attention", cul_mla_attention_args.sizeof());
        try {
            cul_mla_attention_args.q(args, stream.in(q, "q"));
            cul_mla_attention_args.cache(args, stream.in(cache, "cache"));
            cul_mla_attention_args.page_table(args, stream.optional(tokens.pageTable(), "page_table"));
            cul_mla_attention_args.kv_len(args, stream.optional(tokens.kvLen(), "kv_len"));
            cul_mla_attention_args.indices(args, stream.optional(tokens.indices(), "indices"));
            cul_mla_attention_args.topk_len(args, stream.optional(tokens.topkLen(), "topk_len"));
            cul_mla_attention_args.sink(args, stream.optional(sink, "sink"));
            cul_mla_attention_args.o(args, stream.out(o, "o"));
            cul_mla_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_mla_attention_args.scale(args, options.scale());
            cul_mla_attention_args.dv(args, options.valueDim());
            cul_mla_attention_args.causal(args, options.causal() ? 1 : 0);
            cul_mla_attention_args.split_kv_tokens(args, options.splitKvTokens());
            while (stream.again(culebra_h.cul_mla_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
