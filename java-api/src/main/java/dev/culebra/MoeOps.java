package dev.culebra;

import dev.culebra.bindings.generated.cul_moe_align_args;
import dev.culebra.bindings.generated.cul_moe_combine_args;
import dev.culebra.bindings.generated.cul_moe_dispatch_args;
import dev.culebra.bindings.generated.cul_moe_grouped_gemm_args;
import dev.culebra.bindings.generated.cul_moe_mlp_args;
import dev.culebra.bindings.generated.cul_moe_permute_args;
import dev.culebra.bindings.generated.cul_moe_route_args;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** Mixture of experts. */
abstract class MoeOps extends PackedGemmOps {
    MoeOps() {}

    /**
     * Chooses k experts a token: descending score + bias, ties to the lowest id; with groups, the best topkGroup groups
     * first, by their best score, with bias by the sum of their best two. Weights are scores without the bias,
     * renormalised by {@code sum + 1e-20} where asked, times scale. A score that is not finite counts as 0.
     *
     * @param logits [T, E], half or f32, E up to 2048
     * @param bias f32 [E], of the selection only; null: none
     * @param weights f32 [T, k + nShared]
     * @param ids i32 [T, k + nShared]; shared experts, E and up, come last with weight 1
     * @param options k, score, groups
     */
    public static void moeRoute(
            Stream stream,
            Tensor logits,
            @Nullable Tensor bias,
            Tensor weights,
            Tensor ids,
            RouteOptions options) {
        var args = stream.begin("moe_route", cul_moe_route_args.sizeof());
        try {
            cul_moe_route_args.logits(args, stream.in(logits, "logits"));
            cul_moe_route_args.bias(args, stream.optional(bias, "bias"));
            cul_moe_route_args.weights(args, stream.out(weights, "weights"));
            cul_moe_route_args.ids(args, stream.out(ids, "ids"));
            cul_moe_route_args.k(args, options.k());
            cul_moe_route_args.score(args, options.score().ordinal());
            cul_moe_route_args.n_group(args, options.groups());
            cul_moe_route_args.topk_group(args, options.topkGroups());
            cul_moe_route_args.renormalize(args, options.renormalize() ? 1 : 0);
            cul_moe_route_args.n_shared(args, options.shared());
            cul_moe_route_args.scale(args, options.scale());
            while (stream.again(culebra_h.cul_moe_route(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Lists the slots (slot = t k + j) of every expert, in ascending order, each expert's padded to whole blocks. Slots
     * whose id is below 0 or not below {@code experts} are skipped, and those whose expert is remote.
     *
     * <p>Nothing may overlap. All outputs are compact; sorted and blockExpert may be longer than needed.
     *
     * @param ids i32 [T, k]
     * @param expertMap i32 [experts], the local expert of each, -1: remote; null: all are local
     * @param out where the lists go
     * @param options experts and block
     * @throws ArgumentException if a shape, a type or an option does not fit, or {@code out} is too small
     * @throws UnsupportedException if the lists would have 2^31 entries or more
     */
    public static void moeAlign(
            Stream stream, Tensor ids, @Nullable Tensor expertMap, ExpertAlignment out, AlignOptions options) {
        var args = stream.begin("moe_align", cul_moe_align_args.sizeof());
        try {
            cul_moe_align_args.ids(args, stream.in(ids, "ids"));
            cul_moe_align_args.expert_map(args, stream.optional(expertMap, "expert_map"));
            cul_moe_align_args.sorted(args, stream.out(out.sorted(), "sorted"));
            cul_moe_align_args.block_expert(args, stream.out(out.blockExpert(), "block_expert"));
            cul_moe_align_args.offsets(args, stream.out(out.offsets(), "offsets"));
            cul_moe_align_args.inverse(args, stream.out(out.inverse(), "inverse"));
            cul_moe_align_args.n_padded(args, stream.out(out.nPadded(), "n_padded"));
            cul_moe_align_args.experts(args, options.experts());
            cul_moe_align_args.local_experts(args, options.localExperts());
            cul_moe_align_args.block(args, options.block());
            while (stream.again(culebra_h.cul_moe_align(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code rows[inverse[t k + j]] = x[t]}, bit for bit; no other row is written, and slots whose entry is -1 are skipped.
     *
     * @param x [T, D], f32, half or f8e4m3
     * @param inverse i32 [T k], compact, as {@link #moeAlign} writes it: no two entries are equal but -1
     * @param rows [T k, D] as x; overlaps no input
     * @param k slots of a token
     * @throws ArgumentException if a shape or a type does not fit
     */
    public static void moePermute(Stream stream, Tensor x, Tensor inverse, Tensor rows, int k) {
        var args = stream.begin("moe_permute", cul_moe_permute_args.sizeof());
        try {
            cul_moe_permute_args.x(args, stream.in(x, "x"));
            cul_moe_permute_args.inverse(args, stream.in(inverse, "inverse"));
            cul_moe_permute_args.rows(args, stream.out(rows, "rows"));
            cul_moe_permute_args.k(args, k);
            while (stream.again(culebra_h.cul_moe_permute(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y[t] = sum_j weights[t,j] rows[inverse[t k + j]]}, in the order of j, in f32. Slots whose entry is -1 are
     * skipped; rows that no slot addresses are not read.
     *
     * @param rows [T k, D], half or f32
     * @param inverse i32 [T k], compact
     * @param weights f32 [T, k]
     * @param y [T, D] as rows; overlaps no input
     * @param k slots of a token
     * @throws ArgumentException if a shape or a type does not fit
     */
    public static void moeCombine(Stream stream, Tensor rows, Tensor inverse, Tensor weights, Tensor y, int k) {
        combine(stream, rows, inverse, weights, y, k, false);
    }

    /**
     * As {@link #moeCombine}, of rows that {@link #moeDispatch} has placed: there may be any number of them, and a token with a slot
     * for which there was no room, -2, becomes NaN.
     *
     * @param rows [N, D], half or f32
     * @param inverse i32 [T k], compact
     * @param weights f32 [T, k]
     * @param y [T, D] as rows; overlaps no input
     * @param k slots of a token
     * @throws ArgumentException if a shape or a type does not fit
     */
    public static void moeCombineDispatched(Stream stream, Tensor rows, Tensor inverse, Tensor weights, Tensor y, int k) {
        combine(stream, rows, inverse, weights, y, k, true);
    }

    private static void combine(
            Stream stream, Tensor rows, Tensor inverse, Tensor weights, Tensor y, int k, boolean dispatched) {
        var args = stream.begin("moe_combine", cul_moe_combine_args.sizeof());
        try {
            cul_moe_combine_args.rows(args, stream.in(rows, "rows"));
            cul_moe_combine_args.inverse(args, stream.in(inverse, "inverse"));
            cul_moe_combine_args.weights(args, stream.in(weights, "weights"));
            cul_moe_combine_args.y(args, stream.out(y, "y"));
            cul_moe_combine_args.k(args, k);
            cul_moe_combine_args.dispatched(args, dispatched ? 1 : 0);
            while (stream.again(culebra_h.cul_moe_combine(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Rows for the ranks that have the experts: {@code rows[r capacity + i] = x[t]} for the i-th slot t k + j, in ascending order, whose
     * expert is on rank {@code r = expertRank[ids[t,j]]}, and {@code rowIds[r capacity + i] = expertLocal[ids[t,j]]}. Rows that no slot
     * has stay as they are, with a rowId of -1. Returns before completion.
     *
     * <p>Skipped are ids outside of the experts, and experts of other ranks than counts has. Slots beyond capacity are not sent: their
     * inverse is -2. Nothing may overlap. {@link ExpertParallel} exchanges the rows. Lepikhin et al., GShard,
     * <a href="https://arxiv.org/abs/2006.16668">arXiv:2006.16668</a>.
     *
     * @param x [T, D], f32, half or f8e4m3
     * @param ids i32 [T, k]
     * @param expertRank i32 [experts]
     * @param expertLocal i32 [experts]
     * @param out where rows go; capacity is its rows over its ranks
     * @throws ArgumentException if a shape or a type does not fit
     * @throws UnsupportedException if there would be 2^31 slots or more
     */
    public static void moeDispatch(
            Stream stream, Tensor x, Tensor ids, Tensor expertRank, Tensor expertLocal, ExpertRows out) {
        var args = stream.begin("moe_dispatch", cul_moe_dispatch_args.sizeof());
        try {
            cul_moe_dispatch_args.x(args, stream.in(x, "x"));
            cul_moe_dispatch_args.ids(args, stream.in(ids, "ids"));
            cul_moe_dispatch_args.expert_rank(args, stream.in(expertRank, "expert_rank"));
            cul_moe_dispatch_args.expert_local(args, stream.in(expertLocal, "expert_local"));
            cul_moe_dispatch_args.rows(args, stream.out(out.rows(), "rows"));
            cul_moe_dispatch_args.row_ids(args, stream.out(out.rowIds(), "row_ids"));
            cul_moe_dispatch_args.inverse(args, stream.out(out.inverse(), "inverse"));
            cul_moe_dispatch_args.counts(args, stream.out(out.counts(), "counts"));
            while (stream.again(culebra_h.cul_moe_dispatch(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = sum_j weights[t,j] (w2 (act(gate) * up) + b2)} with {@code (gate, up) = w13 x + b13} of expert {@code
     * ids[t,j]}. Ids below 0 or beyond the experts contribute nothing.
     *
     * @param x [T, D], half
     * @param experts the experts' weights
     * @param weights f32 [T, k]
     * @param ids i32 [T, k]; an id may occur twice in a row
     * @param y [T, D] as x
     * @param act of the gate
     */
    public static void moeMlp(
            Stream stream,
            Tensor x,
            ExpertWeights experts,
            Tensor weights,
            Tensor ids,
            Tensor y,
            ExpertActivation act) {
        var args = stream.begin("moe_mlp", cul_moe_mlp_args.sizeof());
        try {
            experts(stream, args, x, experts, y, act);
            cul_moe_mlp_args.weights(args, stream.in(weights, "weights"));
            cul_moe_mlp_args.ids(args, stream.in(ids, "ids"));
            while (stream.again(culebra_h.cul_moe_mlp(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * As {@link #moeRoute} and then {@link #moeMlp(Stream, Tensor, ExpertWeights, Tensor, Tensor, Tensor, ExpertActivation)}
     * with its weights and ids: for few tokens in one kernel.
     *
     * @param x [T, D], half
     * @param experts the experts' weights; the last {@code shared} of the E are the shared experts
     * @param logits [T, E - shared], half or f32
     * @param bias f32 [E - shared], of the selection only; null: none
     * @param route k, score, groups
     * @param y [T, D] as x; overlaps no input
     * @param act of the gate
     * @throws ArgumentException if a shape, a type or an option does not fit
     */
    public static void moeMlp(
            Stream stream,
            Tensor x,
            ExpertWeights experts,
            Tensor logits,
            @Nullable Tensor bias,
            RouteOptions route,
            Tensor y,
            ExpertActivation act) {
        var args = stream.begin("moe_mlp", cul_moe_mlp_args.sizeof());
        try {
            experts(stream, args, x, experts, y, act);
            cul_moe_mlp_args.logits(args, stream.in(logits, "logits"));
            cul_moe_mlp_args.route_bias(args, stream.optional(bias, "route_bias"));
            cul_moe_mlp_args.k(args, route.k());
            cul_moe_mlp_args.score(args, route.score().ordinal());
            cul_moe_mlp_args.n_group(args, route.groups());
            cul_moe_mlp_args.topk_group(args, route.topkGroups());
            cul_moe_mlp_args.renormalize(args, route.renormalize() ? 1 : 0);
            cul_moe_mlp_args.n_shared(args, route.shared());
            cul_moe_mlp_args.scale(args, route.scale());
            while (stream.again(culebra_h.cul_moe_mlp(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    private static void experts(
            Stream stream, MemorySegment args, Tensor x, ExpertWeights experts, Tensor y, ExpertActivation act) {
        cul_moe_mlp_args.x(args, stream.in(x, "x"));
        cul_moe_mlp_args.w13(args, stream.in(experts.w13(), "w13"));
        cul_moe_mlp_args.w13_scales(args, stream.optional(experts.w13Scales(), "w13_scales"));
        cul_moe_mlp_args.w13_zeros(args, stream.optional(experts.w13Zeros(), "w13_zeros"));
        cul_moe_mlp_args.w2(args, stream.in(experts.w2(), "w2"));
        cul_moe_mlp_args.w2_scales(args, stream.optional(experts.w2Scales(), "w2_scales"));
        cul_moe_mlp_args.w2_zeros(args, stream.optional(experts.w2Zeros(), "w2_zeros"));
        cul_moe_mlp_args.b13(args, stream.optional(experts.b13(), "b13"));
        cul_moe_mlp_args.b2(args, stream.optional(experts.b2(), "b2"));
        cul_moe_mlp_args.y(args, stream.out(y, "y"));
        cul_moe_mlp_args.experts(args, experts.kind().ordinal());
        cul_moe_mlp_args.group(args, experts.group());
        cul_moe_mlp_args.act(args, act.kind().ordinal());
        cul_moe_mlp_args.alpha(args, act.alpha());
        cul_moe_mlp_args.limit(args, act.limit());
    }

    /**
     * {@code c[r] = a[r] b[e]^T} for the rows r in {@code [offsets[e], offsets[e+1])} of expert e; with gather, row r reads {@code
     * a[gather[r]]}, zeros where that is -1. With {@link Epilogue#SILU_MUL} the first N/2 columns are gates: {@code c = silu(gate) * up}.
     * Experts without rows are legal; rows of c from {@code offsets[E]} on stay as they are. k is summed in one piece: a row's bits do not
     * depend on the others. Returns before completion. Gale et al., MegaBlocks,
     * <a href="https://arxiv.org/abs/2211.15841">arXiv:2211.15841</a>; Tan et al., ScatterMoE,
     * <a href="https://arxiv.org/abs/2403.08245">arXiv:2403.08245</a>.
     *
     * @param a [R, K] (with gather any number of rows): half, or with f8 experts f8e4m3
     * @param aScale F8: f32 [rows of a, ceil(K/128)]; null otherwise
     * @param b E matrices [N, K]
     * @param offsets i64 [E+1], from 0 on, not descending
     * @param gather i32 [R]; null: the rows as they are
     * @param c [R, N], or [R, N/2] with SILU_MUL: half or f32; overlaps nothing
     * @param epilogue NONE or SILU_MUL
     * @throws ArgumentException if shapes, types or attributes do not fit; the message names both operands
     */
    public static void moeGroupedGemm(
            Stream stream,
            Tensor a,
            @Nullable Tensor aScale,
            ExpertMatrices b,
            Tensor offsets,
            @Nullable Tensor gather,
            Tensor c,
            Epilogue epilogue) {
        var args = stream.begin("moe_grouped_gemm", cul_moe_grouped_gemm_args.sizeof());
        try {
            cul_moe_grouped_gemm_args.a(args, stream.in(a, "a"));
            cul_moe_grouped_gemm_args.a_scale(args, stream.optional(aScale, "a_scale"));
            cul_moe_grouped_gemm_args.b(args, stream.in(b.matrices(), "b"));
            cul_moe_grouped_gemm_args.b_scales(args, stream.optional(b.scales(), "b_scales"));
            cul_moe_grouped_gemm_args.b_zeros(args, stream.optional(b.zeros(), "b_zeros"));
            cul_moe_grouped_gemm_args.offsets(args, stream.in(offsets, "offsets"));
            cul_moe_grouped_gemm_args.gather(args, stream.optional(gather, "gather"));
            cul_moe_grouped_gemm_args.c(args, stream.out(c, "c"));
            cul_moe_grouped_gemm_args.experts(args, b.kind().ordinal());
            cul_moe_grouped_gemm_args.group(args, b.group());
            cul_moe_grouped_gemm_args.act(args, epilogue.ordinal());
            while (stream.again(culebra_h.cul_moe_grouped_gemm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
