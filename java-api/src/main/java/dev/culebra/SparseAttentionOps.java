package dev.culebra;

import dev.culebra.bindings.generated.cul_block_sparse_attention_args;
import dev.culebra.bindings.generated.cul_neighborhood_attention_args;
import dev.culebra.bindings.generated.cul_nsa_attention_args;
import dev.culebra.bindings.generated.cul_nsa_compress_args;
import dev.culebra.bindings.generated.cul_nsa_compressed_attention_args;
import dev.culebra.bindings.generated.cul_nsa_select_args;
import dev.culebra.bindings.generated.cul_nsa_selected_attention_args;
import dev.culebra.bindings.generated.culebra_h;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** Attention to a part of the keys. */
abstract class SparseAttentionOps extends EstimatedAttentionOps {
    private static final int MOST_AXES = 3;

    SparseAttentionOps() {}

    /**
     * Softmax attention over packed sequences in which a block of queries sees the blocks of keys that a mask lists, and with
     * {@code causal} of those only keys up to each query's position i + Lk - Lq. Query head h reads KV head h / (Hq / Hkv)
     * and the mask head h headMap / Hq. A row that sees no key gives 0, and lse -inf. Guo et al., Block-Sparse-Attention, <a
     * href="https://github.com/mit-han-lab/Block-Sparse-Attention">github.com/mit-han-lab/Block-Sparse-Attention</a>.
     *
     * @param q [Tq, Hq, D], half or f32
     * @param k [Tk, Hkv, D] as q
     * @param v [Tk, Hkv, Dv] as q
     * @param cuQ i32 [B+1]: where the sequences' queries begin
     * @param cuK i32 [B+1]: where their keys begin
     * @param mask which blocks are seen
     * @param o [Tq, Hq, Dv] as q
     * @param lse f32 [Tq, Hq], natural log; null: not wanted
     * @param causal no query sees keys after its position
     * @param scale of the scores; 0 = D^-1/2
     */
    public static void blockSparseAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor cuQ,
            Tensor cuK,
            BlockMask mask,
            Tensor o,
            @Nullable Tensor lse,
            boolean causal,
            float scale) {
        var args = stream.begin("block_sparse_attention", cul_block_sparse_attention_args.sizeof());
        try {
            cul_block_sparse_attention_args.q(args, stream.in(q, "q"));
            cul_block_sparse_attention_args.k(args, stream.in(k, "k"));
            cul_block_sparse_attention_args.v(args, stream.in(v, "v"));
            cul_block_sparse_attention_args.cu_q(args, stream.in(cuQ, "cu_q"));
            cul_block_sparse_attention_args.cu_k(args, stream.in(cuK, "cu_k"));
            cul_block_sparse_attention_args.row_ptr(args, stream.in(mask.rowPtr(), "row_ptr"));
            cul_block_sparse_attention_args.col(args, stream.in(mask.col(), "col"));
            cul_block_sparse_attention_args.o(args, stream.out(o, "o"));
            cul_block_sparse_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_block_sparse_attention_args.scale(args, scale);
            cul_block_sparse_attention_args.block_q(args, mask.blockQ());
            cul_block_sparse_attention_args.block_k(args, mask.blockK());
            cul_block_sparse_attention_args.head_map(args, mask.headMap());
            cul_block_sparse_attention_args.causal(args, causal ? 1 : 0);
            while (stream.again(culebra_h.cul_block_sparse_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Attention of each token to its neighbours on a grid of one to three axes. On each axis a query sees only keys of its own
     * residue modulo the dilation; in the coordinates of those, the {@code window} keys around the leader of its {@code stride}
     * queries, clamped at the borders; causal: those before the leader, up to itself. The axes' conditions hold together. Extra
     * keys are seen by every query. Hassani et al., Generalized Neighborhood Attention,
     * <a href="https://arxiv.org/abs/2504.16922">arXiv:2504.16922</a>.
     *
     * @param q [B, *S, Hq, D], half or f32, with 1 to 3 axes S
     * @param k [B, *S, Hkv, D] as q
     * @param v as k
     * @param extraK [B, E, Hkv, D] as q; null: none
     * @param extraV as extraK; null with it
     * @param o as q
     * @param lse f32 [B, *S, Hq], natural log; null: not wanted
     * @param options the neighborhood
     */
    public static void neighborhoodAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            @Nullable Tensor extraK,
            @Nullable Tensor extraV,
            Tensor o,
            @Nullable Tensor lse,
            NeighborhoodOptions options) {
        var args = stream.begin("neighborhood_attention", cul_neighborhood_attention_args.sizeof());
        try {
            cul_neighborhood_attention_args.q(args, stream.in(q, "q"));
            cul_neighborhood_attention_args.k(args, stream.in(k, "k"));
            cul_neighborhood_attention_args.v(args, stream.in(v, "v"));
            cul_neighborhood_attention_args.extra_k(args, stream.optional(extraK, "extra_k"));
            cul_neighborhood_attention_args.extra_v(args, stream.optional(extraV, "extra_v"));
            cul_neighborhood_attention_args.o(args, stream.out(o, "o"));
            cul_neighborhood_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_neighborhood_attention_args.scale(args, options.scale());
            cul_neighborhood_attention_args.window_entries(args, options.window().size());
            cul_neighborhood_attention_args.stride_entries(args, options.stride().size());
            cul_neighborhood_attention_args.dilation_entries(args, options.dilation().size());
            cul_neighborhood_attention_args.causal_entries(args, options.causal().size());
            for (var axis = 0; axis < MOST_AXES; axis++) {
                cul_neighborhood_attention_args.window(args, axis, entry(options.window(), axis));
                cul_neighborhood_attention_args.stride(args, axis, entry(options.stride(), axis));
                cul_neighborhood_attention_args.dilation(args, axis, entry(options.dilation(), axis));
                cul_neighborhood_attention_args.causal(args, axis, axis < options.causal().size() && options.causal().get(axis) ? 1 : 0);
            }
            while (stream.again(culebra_h.cul_neighborhood_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    private static int entry(List<Integer> list, int axis) {
        return axis < list.size() ? list.get(axis) : 0;
    }

    /**
     * Compressed keys or values of native sparse attention: row j of a sequence is the mean over i < l of {@code x[jd+i] +
     * pe[i]}, or their sum of {@code (x[jd+i] + pe[i]) w[i]}. L tokens give {@code max(0, floor((L-l)/d) + 1)} rows. Yuan et al.,
     * Native Sparse Attention, <a href="https://arxiv.org/abs/2502.11089">arXiv:2502.11089</a>.
     *
     * @param x [T, Hkv, D], half or f32
     * @param cuSeqlens i32 [B+1]: where sequences begin
     * @param w [Hkv, l, D, D] as x, in before out, of the linear dialect; null with the mean one
     * @param pe [Hkv, l, D] as x, added within each block; null: none
     * @param y [Tc, Hkv, D] as x; Tc = T / d is enough; rows that no sequence has are not written
     * @param cuOut i32 [B+1]: where each sequence's rows begin in y
     * @param options dialect, l, d
     */
    public static void nsaCompress(
            Stream stream,
            Tensor x,
            Tensor cuSeqlens,
            @Nullable Tensor w,
            @Nullable Tensor pe,
            Tensor y,
            Tensor cuOut,
            NsaOptions options) {
        var args = stream.begin("nsa_compress", cul_nsa_compress_args.sizeof());
        try {
            cul_nsa_compress_args.x(args, stream.in(x, "x"));
            cul_nsa_compress_args.cu_seqlens(args, stream.in(cuSeqlens, "cu_seqlens"));
            cul_nsa_compress_args.w(args, stream.optional(w, "w"));
            cul_nsa_compress_args.pe(args, stream.optional(pe, "pe"));
            cul_nsa_compress_args.y(args, stream.out(y, "y"));
            cul_nsa_compress_args.cu_out(args, stream.out(cuOut, "cu_out"));
            cul_nsa_compress_args.dialect(args, options.dialect().ordinal());
            cul_nsa_compress_args.l(args, options.l());
            cul_nsa_compress_args.d(args, options.d());
            while (stream.again(culebra_h.cul_nsa_compress(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Attention to compressed keys: the query at position p = i + Lk - Lq sees compressed key j iff {@code jd + l - 1 <= p}. The
     * first branch of native sparse attention, <a href="https://arxiv.org/abs/2502.11089">arXiv:2502.11089</a>.
     *
     * @param q [Tq, Hq, D], half or f32
     * @param kCmp [Tc, Hkv, D] as q
     * @param vCmp as kCmp
     * @param cuQ i32 [B+1]: where the sequences' queries begin
     * @param cuK i32 [B+1]: where their tokens begin; only lengths matter
     * @param cuCmp i32 [B+1]: where their compressed keys begin
     * @param o as q
     * @param lse f32 [Tq, Hq], natural log; null: not wanted
     * @param options l, d, scale
     */
    public static void nsaCompressedAttention(
            Stream stream,
            Tensor q,
            Tensor kCmp,
            Tensor vCmp,
            Tensor cuQ,
            Tensor cuK,
            Tensor cuCmp,
            Tensor o,
            @Nullable Tensor lse,
            NsaOptions options) {
        var args = stream.begin("nsa_compressed_attention", cul_nsa_compressed_attention_args.sizeof());
        try {
            cul_nsa_compressed_attention_args.q(args, stream.in(q, "q"));
            cul_nsa_compressed_attention_args.k_cmp(args, stream.in(kCmp, "k_cmp"));
            cul_nsa_compressed_attention_args.v_cmp(args, stream.in(vCmp, "v_cmp"));
            cul_nsa_compressed_attention_args.cu_q(args, stream.in(cuQ, "cu_q"));
            cul_nsa_compressed_attention_args.cu_k(args, stream.in(cuK, "cu_k"));
            cul_nsa_compressed_attention_args.cu_cmp(args, stream.in(cuCmp, "cu_cmp"));
            cul_nsa_compressed_attention_args.o(args, stream.out(o, "o"));
            cul_nsa_compressed_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_nsa_compressed_attention_args.scale(args, options.scale());
            cul_nsa_compressed_attention_args.l(args, options.l());
            cul_nsa_compressed_attention_args.d(args, options.d());
            while (stream.again(culebra_h.cul_nsa_compressed_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * The blocks that each query and KV head attends to: of the blocks up to the query's own the first {@code init}, the last
     * {@code local}, and the best others up to {@code topk}, ties to the lower. A block's score adds up the probabilities of
     * the compressed keys that overlap it, {@code exp(scale q.k - lse)} summed over the group, each as often as pieces of d tokens
     * of both coincide. <a href="https://arxiv.org/abs/2502.11089">arXiv:2502.11089</a>.
     *
     * @param q [Tq, Hq, D], half or f32
     * @param kCmp [Tc, Hkv, D] as q
     * @param lse f32 [Tq, Hq] of the compressed attention
     * @param cuQ i32 [B+1]: where the sequences' queries begin
     * @param cuK i32 [B+1]: where their tokens begin; only lengths matter
     * @param cuCmp i32 [B+1]: where their compressed keys begin
     * @param idx i32 [Hkv, Tq, topk]: blocks ascending, then -1
     * @param count i32 [Hkv, Tq]: how many there are
     * @param options l, d, block, topk, init, local, scale
     */
    public static void nsaSelect(
            Stream stream,
            Tensor q,
            Tensor kCmp,
            Tensor lse,
            Tensor cuQ,
            Tensor cuK,
            Tensor cuCmp,
            Tensor idx,
            Tensor count,
            NsaOptions options) {
        var args = stream.begin("nsa_select", cul_nsa_select_args.sizeof());
        try {
            cul_nsa_select_args.q(args, stream.in(q, "q"));
            cul_nsa_select_args.k_cmp(args, stream.in(kCmp, "k_cmp"));
            cul_nsa_select_args.lse(args, stream.in(lse, "lse"));
            cul_nsa_select_args.cu_q(args, stream.in(cuQ, "cu_q"));
            cul_nsa_select_args.cu_k(args, stream.in(cuK, "cu_k"));
            cul_nsa_select_args.cu_cmp(args, stream.in(cuCmp, "cu_cmp"));
            cul_nsa_select_args.idx(args, stream.out(idx, "idx"));
            cul_nsa_select_args.count(args, stream.out(count, "count"));
            cul_nsa_select_args.scale(args, options.scale());
            cul_nsa_select_args.l(args, options.l());
            cul_nsa_select_args.d(args, options.d());
            cul_nsa_select_args.block(args, options.block());
            cul_nsa_select_args.topk(args, options.topk());
            cul_nsa_select_args.init(args, options.init());
            cul_nsa_select_args.local(args, options.local());
            while (stream.again(culebra_h.cul_nsa_select(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Attention to selected blocks of keys, causal: of each block a query sees the keys up to its position i + Lk - Lq, of blocks
     * behind it none. Yan et al., Flash Sparse Attention, <a href="https://arxiv.org/abs/2508.18224">arXiv:2508.18224</a>.
     *
     * @param q [Tq, Hq, D], half or f32
     * @param k [Tk, Hkv, D] as q
     * @param v [Tk, Hkv, Dv] as q
     * @param cuQ i32 [B+1]: where the sequences' queries begin
     * @param cuK i32 [B+1]: where their keys begin
     * @param idx i32 [Hkv, Tq, n]: blocks, each once, in any order; -1 anywhere
     * @param o [Tq, Hq, Dv] as q
     * @param lse f32 [Tq, Hq], natural log; null: not wanted
     * @param options block, order, scale
     */
    public static void nsaSelectedAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor cuQ,
            Tensor cuK,
            Tensor idx,
            Tensor o,
            @Nullable Tensor lse,
            NsaOptions options) {
        var args = stream.begin("nsa_selected_attention", cul_nsa_selected_attention_args.sizeof());
        try {
            cul_nsa_selected_attention_args.q(args, stream.in(q, "q"));
            cul_nsa_selected_attention_args.k(args, stream.in(k, "k"));
            cul_nsa_selected_attention_args.v(args, stream.in(v, "v"));
            cul_nsa_selected_attention_args.cu_q(args, stream.in(cuQ, "cu_q"));
            cul_nsa_selected_attention_args.cu_k(args, stream.in(cuK, "cu_k"));
            cul_nsa_selected_attention_args.idx(args, stream.in(idx, "idx"));
            cul_nsa_selected_attention_args.o(args, stream.out(o, "o"));
            cul_nsa_selected_attention_args.lse(args, stream.optionalOut(lse, "lse"));
            cul_nsa_selected_attention_args.scale(args, options.scale());
            cul_nsa_selected_attention_args.block(args, options.block());
            cul_nsa_selected_attention_args.order(args, options.order().ordinal());
            while (stream.again(culebra_h.cul_nsa_selected_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Native sparse attention: {@code o = g0 compressed + g1 selected + g2 window}, three attentions of the same queries. In the
     * mean dialect keys and values are averaged here; in the linear one {@link #nsaCompress} has made compressed ones. A branch
     * that sees nothing is 0. <a href="https://arxiv.org/abs/2502.11089">arXiv:2502.11089</a>.
     *
     * @param q [Tq, Hq, D], half or f32
     * @param k [Tk, Hkv, D] as q
     * @param v [Tk, Hkv, Dv] as q
     * @param cuQ i32 [B+1]: where the sequences' queries begin
     * @param cuK i32 [B+1]: where their keys begin
     * @param gates f32 [Tq, Hq, 3], after the sigmoid: compressed, selected, window; one gate per token: a view with stride 0
     * @param kCmp [Tc, Hkv, D] as q, of the linear dialect; null with the mean one
     * @param vCmp [Tc, Hkv, Dv] as q; null with kCmp
     * @param cuCmp i32 [B+1]: where the sequences' compressed keys begin; null with kCmp
     * @param o [Tq, Hq, Dv] as q
     * @param idx i32 [Hkv, Tq, topk]: the blocks selected; null: not wanted
     * @param options all but the order
     */
    public static void nsaAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor cuQ,
            Tensor cuK,
            Tensor gates,
            @Nullable Tensor kCmp,
            @Nullable Tensor vCmp,
            @Nullable Tensor cuCmp,
            Tensor o,
            @Nullable Tensor idx,
            NsaOptions options) {
        var args = stream.begin("nsa_attention", cul_nsa_attention_args.sizeof());
        try {
            cul_nsa_attention_args.q(args, stream.in(q, "q"));
            cul_nsa_attention_args.k(args, stream.in(k, "k"));
            cul_nsa_attention_args.v(args, stream.in(v, "v"));
            cul_nsa_attention_args.cu_q(args, stream.in(cuQ, "cu_q"));
            cul_nsa_attention_args.cu_k(args, stream.in(cuK, "cu_k"));
            cul_nsa_attention_args.gates(args, stream.in(gates, "gates"));
            cul_nsa_attention_args.k_cmp(args, stream.optional(kCmp, "k_cmp"));
            cul_nsa_attention_args.v_cmp(args, stream.optional(vCmp, "v_cmp"));
            cul_nsa_attention_args.cu_cmp(args, stream.optional(cuCmp, "cu_cmp"));
            cul_nsa_attention_args.o(args, stream.out(o, "o"));
            cul_nsa_attention_args.idx(args, stream.optionalOut(idx, "idx"));
            cul_nsa_attention_args.scale(args, options.scale());
            cul_nsa_attention_args.dialect(args, options.dialect().ordinal());
            cul_nsa_attention_args.l(args, options.l());
            cul_nsa_attention_args.d(args, options.d());
            cul_nsa_attention_args.block(args, options.block());
            cul_nsa_attention_args.topk(args, options.topk());
            cul_nsa_attention_args.init(args, options.init());
            cul_nsa_attention_args.local(args, options.local());
            cul_nsa_attention_args.window(args, options.window());
            while (stream.again(culebra_h.cul_nsa_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
