package dev.culebra;

import dev.culebra.bindings.generated.cul_bitmap_kv_attention_args;
import dev.culebra.bindings.generated.cul_bitmap_kv_compress_args;
import dev.culebra.bindings.generated.cul_cca_qkv_args;
import dev.culebra.bindings.generated.cul_kv_merge_args;
import dev.culebra.bindings.generated.cul_kv_page_stats_args;
import dev.culebra.bindings.generated.cul_kv_select_args;
import dev.culebra.bindings.generated.cul_mla_index_topk_args;
import dev.culebra.bindings.generated.culebra_h;
import org.jspecify.annotations.Nullable;

/** What is done to a KV cache beside attending to it: sparse storage, page statistics, selection, merging. */
abstract class KvCacheOps extends AttentionOps {
    KvCacheOps() {}

    /**
     * Keeps the channels of largest magnitude of each row: {@code bits} says which, {@code values} holds them by ascending
     * channel. Ties go to the lower channel; NaN counts as larger than every number. How many are kept is values' last
     * dimension. Mustafar, <a href="https://arxiv.org/abs/2505.22913">arXiv:2505.22913</a>.
     *
     * @param x [T, Hkv, D], half or f32, D a multiple of 64
     * @param values [T, Hkv, keep] as x, keep a multiple of 8 up to D; no other operand's memory
     * @param bits i64 [T, Hkv, D / 64]: bit c % 64 of word c / 64 stands for channel c; no other operand's memory
     * @param keep channels of each row
     */
    public static void bitmapKvCompress(Stream stream, Tensor x, Tensor values, Tensor bits, int keep) {
        var args = stream.begin("bitmap_kv_compress", cul_bitmap_kv_compress_args.sizeof());
        try {
            cul_bitmap_kv_compress_args.x(args, stream.in(x, "x"));
            cul_bitmap_kv_compress_args.values(args, stream.out(values, "values"));
            cul_bitmap_kv_compress_args.bits(args, stream.out(bits, "bits"));
            cul_bitmap_kv_compress_args.keep(args, keep);
            while (stream.again(culebra_h.cul_bitmap_kv_compress(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code o = softmax(scale q k^T) v} over a compressed cache followed by a dense tail, in one softmax. The Sq queries
     * are the last of a sequence's tokens, causal among themselves. A row that sees no key gives 0, and lse -inf.
     * Mustafar, <a href="https://arxiv.org/abs/2505.22913">arXiv:2505.22913</a>.
     *
     * @param q [B, Sq, Hq, D], half or f32, D a multiple of 64
     * @param cache pages as {@link #bitmapKvCompress} writes their rows
     * @param pageTable i32 [B, maxP]: a sequence's pages in order; entries past its length are not looked at
     * @param kvLen i32 [B]: the compressed tokens of each sequence
     * @param kTail [B, W, Hkv, D] as q: the tokens behind them
     * @param vTail as kTail
     * @param tailLen i32 [B]: how many of the W
     * @param o as q; no other operand's memory
     * @param lse f32 [B, Sq, Hq], the natural log of the sum of exponentials; null: not wanted
     * @param scale of the scores; 0 = D^-1/2
     * @param splitKvTokens tokens that one block works through; 0 = tuned, larger = fixed and independent of the batch
     */
    public static void bitmapKvAttention(
            Stream stream,
            Tensor q,
            BitmapCache cache,
            Tensor pageTable,
            Tensor kvLen,
            Tensor kTail,
            Tensor vTail,
            Tensor tailLen,
            Tensor o,
            @Nullable Tensor lse,
            float scale,
            int splitKvTokens) {
        var args = stream.begin("bitmap_kv_attention", cul_bitmap_kv_attention_args.sizeof());
        try {
            cul_bitmap_kv_attention_args.q(args, stream.in(q, "q"));
            cul_bitmap_kv_attention_args.k_values(args, stream.in(cache.kValues(), "k_values"));
            cul_bitmap_kv_attention_args.k_bits(args, stream.in(cache.kBits(), "k_bits"));
            cul_bitmap_kv_attention_args.v_values(args, stream.in(cache.vValues(), "v_values"));
            cul_bitmap_kv_attention_args.v_bits(args, stream.in(cache.vBits(), "v_bits"));
            cul_bitmap_kv_attention_args.page_table(args, stream.in(pageTable, "page_table"));
            cul_bitmap_kv_attention_args.kv_len(args, stream.in(kvLen, "kv_len"));
            cul_bitmap_kv_attention_args.k_tail(args, stream.in(kTail, "k_tail"));
            cul_bitmap_kv_attention_args.v_tail(args, stream.in(vTail, "v_tail"));
            cul_bitmap_kv_attention_args.tail_len(args, stream.in(tailLen, "tail_len"));
            cul_bitmap_kv_attention_args.o(args, stream.out(o, "o"));
            cul_bitmap_kv_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_bitmap_kv_attention_args.scale(args, scale);
            cul_bitmap_kv_attention_args.split_kv_tokens(args, splitKvTokens);
            while (stream.again(culebra_h.cul_bitmap_kv_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Per page, head and channel the smallest and the largest key, which {@link #kvSelect} scores pages by. Of sequence b
     * only the pages with a token from firstToken[b] to kvLen[b] - 1 are computed, anew; all others stay as they are. A NaN
     * makes both NaN. Quest, <a href="https://arxiv.org/abs/2406.10774">arXiv:2406.10774</a>.
     *
     * @param kCache [P, page, Hkv, D], half or f32
     * @param pageTable i32 [B, maxP]; pages of -1 are passed over
     * @param firstToken i32 [B]: the first token that is new
     * @param kvLen i32 [B]: the tokens of each sequence
     * @param pageMin [P, Hkv, D] as kCache; no other operand's memory
     * @param pageMax as pageMin
     */
    public static void kvPageStats(
            Stream stream,
            Tensor kCache,
            Tensor pageTable,
            Tensor firstToken,
            Tensor kvLen,
            Tensor pageMin,
            Tensor pageMax) {
        var args = stream.begin("kv_page_stats", cul_kv_page_stats_args.sizeof());
        try {
            cul_kv_page_stats_args.k_cache(args, stream.in(kCache, "k_cache"));
            cul_kv_page_stats_args.page_table(args, stream.in(pageTable, "page_table"));
            cul_kv_page_stats_args.first_token(args, stream.in(firstToken, "first_token"));
            cul_kv_page_stats_args.kv_len(args, stream.in(kvLen, "kv_len"));
            cul_kv_page_stats_args.page_min(args, stream.out(pageMin, "page_min"));
            cul_kv_page_stats_args.page_max(args, stream.out(pageMax, "page_max"));
            while (stream.again(culebra_h.cul_kv_page_stats(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Chooses pages for a decode step by {@code score = sum of max(q min, q max)} over the heads of a group and the channels,
     * an upper bound of the scores within a page. The first and last pages are forced as the options say, ties go to the
     * lower page. With a previous choice: where the cosine of the group's q and qRef is at least theta, it is kept, which
     * the device decides. Quest, <a href="https://arxiv.org/abs/2406.10774">arXiv:2406.10774</a>; LouisKV, <a
     * href="https://arxiv.org/abs/2510.11292">arXiv:2510.11292</a>.
     *
     * @param q [B, Hq, D], half or f32
     * @param pageMin [P, Hkv, D] as q
     * @param pageMax as pageMin
     * @param pageTable i32 [B, maxP]; a page of -1 scores -inf
     * @param pageCount i32 [B]: the pages of each sequence
     * @param qRef as q, the queries of the previous choice; null: none
     * @param prevIdx i32 [B, Hkv, topk], the previous choice; with qRef
     * @param idx i32 [B, Hkv, topk]: logical pages, ascending, -1 padded; no other operand's memory
     * @param count i32 [B, Hkv]: how many; no other operand's memory
     * @param options how many pages, and which of them are forced
     */
    public static void kvSelect(
            Stream stream,
            Tensor q,
            Tensor pageMin,
            Tensor pageMax,
            Tensor pageTable,
            Tensor pageCount,
            @Nullable Tensor qRef,
            @Nullable Tensor prevIdx,
            Tensor idx,
            Tensor count,
            KvSelectOptions options) {
        var args = stream.begin("kv_select", cul_kv_select_args.sizeof());
        try {
            cul_kv_select_args.q(args, stream.in(q, "q"));
            cul_kv_select_args.page_min(args, stream.in(pageMin, "page_min"));
            cul_kv_select_args.page_max(args, stream.in(pageMax, "page_max"));
            cul_kv_select_args.page_table(args, stream.in(pageTable, "page_table"));
            cul_kv_select_args.page_count(args, stream.in(pageCount, "page_count"));
            cul_kv_select_args.q_ref(args, stream.optional(qRef, "q_ref"));
            cul_kv_select_args.prev_idx(args, stream.optional(prevIdx, "prev_idx"));
            cul_kv_select_args.idx(args, stream.out(idx, "idx"));
            cul_kv_select_args.count(args, stream.out(count, "count"));
            cul_kv_select_args.topk(args, options.topk());
            cul_kv_select_args.sink(args, options.sink());
            cul_kv_select_args.recent(args, options.recent());
            cul_kv_select_args.theta(args, options.theta());
            while (stream.again(culebra_h.cul_kv_select(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Merges runs of neighbouring tokens with similar keys. Per sequence and head the {@code floor(protect L)} tokens of
     * largest attention mass stay alone and end runs; token i joins the run of i - 1 where neither is one of them and {@code
     * cos(k_i, k_(i-1)) > eps}. A run becomes {@code sum w_i k_i, sum w_i v_i} with {@code w_i ~ exp(-|k_i - k_p|^2 / (2 s))}, p
     * its token of largest mass, s the mean of {@code |k_i - k_p|^2}; s = 0: equal weights. KVMerger, <a
     * href="https://arxiv.org/abs/2407.08454">arXiv:2407.08454</a>.
     *
     * @param k [T, Hkv, D], half or f32
     * @param v [T, Hkv, Dv] as k
     * @param attnMass f32 [T, Hkv]
     * @param cuSeqlens i32 [B+1]: where the sequences begin
     * @param mergedK as k: row r of a sequence is its run r, rows beyond the runs are 0; no other operand's memory
     * @param mergedV as v, likewise
     * @param origin i32 [T, Hkv]: p within its sequence, the position to encode; -1 beyond the runs
     * @param count i32 [B, Hkv]: the number of runs
     * @param eps the least similarity, 0 to 1
     * @param protect the share that stays alone, 0 to 1
     */
    public static void kvMerge(
            Stream stream,
            Tensor k,
            Tensor v,
            Tensor attnMass,
            Tensor cuSeqlens,
            Tensor mergedK,
            Tensor mergedV,
            Tensor origin,
            Tensor count,
            double eps,
            double protect) {
        var args = stream.begin("kv_merge", cul_kv_merge_args.sizeof());
        try {
            cul_kv_merge_args.k(args, stream.in(k, "k"));
            cul_kv_merge_args.v(args, stream.in(v, "v"));
            cul_kv_merge_args.attn_mass(args, stream.in(attnMass, "attn_mass"));
            cul_kv_merge_args.cu_seqlens(args, stream.in(cuSeqlens, "cu_seqlens"));
            cul_kv_merge_args.merged_k(args, stream.out(mergedK, "merged_k"));
            cul_kv_merge_args.merged_v(args, stream.out(mergedV, "merged_v"));
            cul_kv_merge_args.origin(args, stream.out(origin, "origin"));
            cul_kv_merge_args.count(args, stream.out(count, "count"));
            cul_kv_merge_args.eps(args, eps);
            cul_kv_merge_args.protect(args, protect);
            while (stream.again(culebra_h.cul_kv_merge(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * The indexer of sparse latent attention: of the keys that a query sees, the topk of largest {@code sum_j w_j max(q_j .
     * k_s, 0)}, ties to the lower position. Scores are chosen from as they are made, never stored. DeepSeek-V3.2-Exp, <a
     * href="https://arxiv.org/abs/2512.02556">arXiv:2512.02556</a>.
     *
     * @param q f8e4m3 [T, 64, 128]
     * @param keys u8 [P, page, 132]: a row holds 128 e4m3 elements and an f32 that scales them
     * @param weights f32 [T, 64]
     * @param cuQ i32 [B+1]: where the sequences' queries begin; they are the last ones of kvLen tokens
     * @param pageTable i32 [B, maxP]
     * @param kvLen i32 [B]: the tokens of each sequence
     * @param idx i32 [T, topk], ascending by position, -1 padded; topk up to 4096; no other operand's memory
     * @param topk keys of each query
     * @param index what idx names the keys by
     */
    public static void mlaIndexTopk(
            Stream stream,
            Tensor q,
            Tensor keys,
            Tensor weights,
            Tensor cuQ,
            Tensor pageTable,
            Tensor kvLen,
            Tensor idx,
            int topk,
            KeyIndex index) {
        var args = stream.begin("mla_index_topk", cul_mla_index_topk_args.sizeof());
        try {
            cul_mla_index_topk_args.q(args, stream.in(q, "q"));
            cul_mla_index_topk_args.keys(args, stream.in(keys, "keys"));
            cul_mla_index_topk_args.weights(args, stream.in(weights, "weights"));
            cul_mla_index_topk_args.cu_q(args, stream.in(cuQ, "cu_q"));
            cul_mla_index_topk_args.page_table(args, stream.in(pageTable, "page_table"));
            cul_mla_index_topk_args.kv_len(args, stream.in(kvLen, "kv_len"));
            cul_mla_index_topk_args.idx(args, stream.out(idx, "idx"));
            cul_mla_index_topk_args.topk(args, topk);
            cul_mla_index_topk_args.slots(args, index == KeyIndex.SLOT ? 1 : 0);
            while (stream.again(culebra_h.cul_mla_index_topk(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Queries, keys and values of compressed convolutional attention, of a prefill or a step. With x = concat(x_q, x_k):
     * {@code y1 = conv1(x)} per channel, {@code y2 = conv2(y1)} per head, both causal over two tokens; {@code m = (x_q + x_k) /
     * 2; q = y2 + m; k = y2 + mean of m over the group}; then both times {@code sqrt(D) / max(norm, 1e-6)}, k times temp, and
     * RoPE on the first R channels. {@code v = concat(x_v1[t], x_v2[t-1])}. Compressed Convolutional Attention, <a
     * href="https://arxiv.org/abs/2510.04476">arXiv:2510.04476</a>.
     *
     * @param inputs the projected tokens, half or f32
     * @param weights of the convolutions, and the temperatures
     * @param rotary cosines and sines f32 [B, T, R/2], in halves; null: none
     * @param state of the tokens before; null: zeros
     * @param q [B, T, Hq, D] as the inputs; no other operand's memory
     * @param k [B, T, Hkv, D], likewise
     * @param v [B, T, Hkv, D], likewise, copied bit for bit
     * @param newState what the next call takes, and may be {@code state}; null: not wanted
     */
    public static void ccaQkv(
            Stream stream,
            CcaInputs inputs,
            CcaWeights weights,
            @Nullable RotaryTables rotary,
            @Nullable CcaState state,
            Tensor q,
            Tensor k,
            Tensor v,
            @Nullable CcaState newState) {
        var args = stream.begin("cca_qkv", cul_cca_qkv_args.sizeof());
        try {
            cul_cca_qkv_args.x_q(args, stream.in(inputs.q(), "x_q"));
            cul_cca_qkv_args.x_k(args, stream.in(inputs.k(), "x_k"));
            cul_cca_qkv_args.x_v1(args, stream.in(inputs.v1(), "x_v1"));
            cul_cca_qkv_args.x_v2(args, stream.in(inputs.v2(), "x_v2"));
            cul_cca_qkv_args.conv1_w(args, stream.in(weights.conv1(), "conv1_w"));
            cul_cca_qkv_args.conv1_b(args, stream.optional(weights.conv1Bias(), "conv1_b"));
            cul_cca_qkv_args.conv2_w(args, stream.in(weights.conv2(), "conv2_w"));
            cul_cca_qkv_args.conv2_b(args, stream.optional(weights.conv2Bias(), "conv2_b"));
            cul_cca_qkv_args.temp(args, stream.in(weights.temp(), "temp"));
            cul_cca_qkv_args.cos(args, stream.optional(rotary == null ? null : rotary.cos(), "cos"));
            cul_cca_qkv_args.sin(args, stream.optional(rotary == null ? null : rotary.sin(), "sin"));
            cul_cca_qkv_args.conv_state(args, stream.optional(state == null ? null : state.conv(), "conv_state"));
            cul_cca_qkv_args.v_state(args, stream.optional(state == null ? null : state.v(), "v_state"));
            cul_cca_qkv_args.q(args, stream.out(q, "q"));
            cul_cca_qkv_args.k(args, stream.out(k, "k"));
            cul_cca_qkv_args.v(args, stream.out(v, "v"));
            cul_cca_qkv_args.new_conv_state(args,
                    stream.optionalOut(newState == null ? null : newState.conv(), "new_conv_state"));
            cul_cca_qkv_args.new_v_state(args, stream.optionalOut(newState == null ? null : newState.v(), "new_v_state"));
            while (stream.again(culebra_h.cul_cca_qkv(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
