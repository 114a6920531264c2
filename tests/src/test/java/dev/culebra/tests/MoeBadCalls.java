package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;
import static dev.culebra.DType.U8;

import dev.culebra.AlignOptions;
import dev.culebra.DType;
import dev.culebra.Epilogue;
import dev.culebra.ExpertActivation;
import dev.culebra.ExpertAlignment;
import dev.culebra.ExpertMatrices;
import dev.culebra.ExpertRows;
import dev.culebra.ExpertWeights;
import dev.culebra.Ops;
import dev.culebra.RouteOptions;

/** Bad calls of the mixture of experts. */
final class MoeBadCalls {
    private MoeBadCalls() {}

    static void add(BadCalls table) {
        table.bad("moe_route", "k above E", Refused.RANGE, on -> Ops.moeRoute(on.stream, on.zeros(F32, 3, 4), null,
                on.zeros(F32, 3, 5), on.zeros(I32, 3, 5), RouteOptions.top(5)), "k", "5", "4");
        table.bad("moe_route", "groups do not divide E", Refused.RANGE, on -> Ops.moeRoute(on.stream, on.zeros(F32, 3, 10), null,
                on.zeros(F32, 3, 2), on.zeros(I32, 3, 2), RouteOptions.top(2).withGroups(4, 2)), "n_group", "4", "10");
        table.bad("moe_route", "ids are too narrow", Refused.SHAPE, on -> Ops.moeRoute(on.stream, on.zeros(F32, 3, 8), null,
                on.zeros(F32, 3, 2), on.zeros(I32, 3, 1), RouteOptions.top(2)), "ids", "[3, 1]");
        table.bad("moe_route", "k above 32", Refused.RANGE, on -> Ops.moeRoute(on.stream, on.zeros(F32, 3, 64), null,
                on.zeros(F32, 3, 33), on.zeros(I32, 3, 33), RouteOptions.top(33)), "k", "33", "32");
        table.bad("moe_route", "too many experts", Refused.UNSUPPORTED, on -> Ops.moeRoute(on.stream, on.zeros(F32, 3, 2049), null,
                on.zeros(F32, 3, 2), on.zeros(I32, 3, 2), RouteOptions.top(2)), "2049", "2048");
        table.bad("moe_route", "the chosen groups have fewer than k experts", Refused.RANGE, on -> Ops.moeRoute(on.stream,
                on.zeros(F32, 3, 16), null, on.zeros(F32, 3, 5), on.zeros(I32, 3, 5), RouteOptions.top(5).withGroups(8, 2)),
                "k is 5", "topk_group = 2", "4");
        table.bad("moe_route", "a bias of half", Refused.DTYPE, on -> Ops.moeRoute(on.stream, on.zeros(BF16, 3, 8),
                on.zeros(BF16, 8), on.zeros(F32, 3, 2), on.zeros(I32, 3, 2), RouteOptions.top(2)), "bias", "bf16");
        align(table, "a block of 12", Refused.RANGE, I32, 2, 8, new AlignOptions(8, 8, 12), 96, 8, "block", "12");
        align(table, "more local experts than experts", Refused.RANGE, I32, 2, 8, new AlignOptions(8, 9, 8), 72, 9, "local_experts", "9");
        align(table, "no experts", Refused.RANGE, I32, 2, 8, new AlignOptions(0, 0, 8), 72, 9, "experts", "0");
        align(table, "local experts without a map", Refused.NULL, I32, 2, 8, new AlignOptions(8, 4, 8), 40, 4, "expert_map", "4");
        align(table, "too small a list", Refused.SHAPE, I32, 2, 8, new AlignOptions(8, 8, 8), 56, 8, "sorted", "[56]", "64");
        align(table, "a list of no whole blocks", Refused.SHAPE, I32, 2, 8, new AlignOptions(8, 8, 8), 68, 8, "sorted", "[68]");
        align(table, "offsets of another number of experts", Refused.SHAPE, I32, 2, 8, new AlignOptions(8, 8, 8), 64, 7, "offsets", "[8]");
        align(table, "ids of i64", Refused.DTYPE, I64, 2, 8, new AlignOptions(8, 8, 8), 64, 8, "ids", "i64");
        align(table, "a short inverse", Refused.SHAPE, I32, 2, 7, new AlignOptions(8, 8, 8), 64, 8, "inverse", "[7]", "8");
        table.bad("moe_permute", "a short inverse", Refused.SHAPE, on -> Ops.moePermute(on.stream, on.zeros(BF16, 4, 16),
                on.zeros(I32, 7), on.zeros(BF16, 8, 16), 2), "inverse", "[7]", "8");
        table.bad("moe_permute", "k of 0", Refused.RANGE, on -> Ops.moePermute(on.stream, on.zeros(BF16, 4, 16), on.zeros(I32, 0),
                on.zeros(BF16, 0, 16), 0), "k", "0");
        table.bad("moe_permute", "rows of another type", Refused.DTYPE, on -> Ops.moePermute(on.stream, on.zeros(BF16, 4, 16),
                on.zeros(I32, 8), on.zeros(F32, 8, 16), 2), "rows", "f32", "bf16");
        table.bad("moe_permute", "integers", Refused.DTYPE, on -> Ops.moePermute(on.stream, on.zeros(I32, 4, 16),
                on.zeros(I32, 8), on.zeros(I32, 8, 16), 2), "x", "i32");
        table.bad("moe_permute", "too few rows", Refused.SHAPE, on -> Ops.moePermute(on.stream, on.zeros(BF16, 4, 16),
                on.zeros(I32, 8), on.zeros(BF16, 7, 16), 2), "rows", "[7, 16]", "8");
        table.bad("moe_combine", "weights of another k", Refused.SHAPE, on -> Ops.moeCombine(on.stream, on.zeros(BF16, 8, 16),
                on.zeros(I32, 8), on.zeros(F32, 4, 3), on.zeros(BF16, 4, 16), 2), "weights", "[4, 3]", "2");
        table.bad("moe_combine", "weights of half", Refused.DTYPE, on -> Ops.moeCombine(on.stream, on.zeros(BF16, 8, 16),
                on.zeros(I32, 8), on.zeros(BF16, 4, 2), on.zeros(BF16, 4, 16), 2), "weights", "bf16");
        table.bad("moe_combine", "an output of another width", Refused.SHAPE, on -> Ops.moeCombine(on.stream, on.zeros(BF16, 8, 16),
                on.zeros(I32, 8), on.zeros(F32, 4, 2), on.zeros(BF16, 4, 15), 2), "y", "[4, 15]", "16");
        table.bad("moe_combine", "an output of another type", Refused.DTYPE, on -> Ops.moeCombine(on.stream, on.zeros(BF16, 8, 16),
                on.zeros(I32, 8), on.zeros(F32, 4, 2), on.zeros(F32, 4, 16), 2), "y", "f32", "bf16");
        table.bad("moe_combine", "dispatched rows of another width", Refused.SHAPE, on -> Ops.moeCombineDispatched(on.stream,
                on.zeros(BF16, 3, 15), on.zeros(I32, 8), on.zeros(F32, 4, 2), on.zeros(BF16, 4, 16), 2), "y", "[4, 16]", "15");
        dispatch(table, "rows of another capacity", Refused.SHAPE, BF16, I32, 5, 4, 6, 4, 8, 2, "rows", "[5, 16]", "4");
        dispatch(table, "row ids that ranks do not divide", Refused.SHAPE, BF16, I32, 5, 5, 6, 4, 8, 2, "row_ids", "[5]", "2");
        dispatch(table, "a short inverse", Refused.SHAPE, BF16, I32, 4, 4, 6, 4, 7, 2, "inverse", "[7]", "8");
        dispatch(table, "no ranks", Refused.SHAPE, BF16, I32, 0, 0, 6, 4, 8, 0, "counts", "[0]");
        dispatch(table, "no experts", Refused.SHAPE, BF16, I32, 4, 4, 0, 4, 8, 2, "expert_rank", "[0]");
        dispatch(table, "ids of another number of tokens", Refused.SHAPE, BF16, I32, 4, 4, 6, 3, 6, 2, "ids", "[3, 2]", "4");
        dispatch(table, "ids of i64", Refused.DTYPE, BF16, I64, 4, 4, 6, 4, 8, 2, "ids", "i64");
        dispatch(table, "integers", Refused.DTYPE, I32, I32, 4, 4, 6, 4, 8, 2, "x", "i32");
        table.bad("moe_mlp", "w2 has another width", Refused.SHAPE, on -> Ops.moeMlp(on.stream, on.zeros(BF16, 3, 64),
                ExpertWeights.half(on.zeros(BF16, 4, 64, 64), on.zeros(BF16, 4, 64, 16)), on.zeros(F32, 3, 2), on.zeros(I32, 3, 2),
                on.zeros(BF16, 3, 64), ExpertActivation.SILU), "w2", "16", "32");
        table.bad("moe_mlp", "logits of another number of experts", Refused.SHAPE, on -> Ops.moeMlp(on.stream, on.zeros(BF16, 3, 64),
                ExpertWeights.half(on.zeros(BF16, 4, 64, 64), on.zeros(BF16, 4, 64, 32)), on.zeros(F32, 3, 5), null, RouteOptions.top(2),
                on.zeros(BF16, 3, 64), ExpertActivation.SILU), "logits", "[3, 5]", "4");
        table.bad("moe_mlp", "more experts a token than there are", Refused.RANGE, on -> Ops.moeMlp(on.stream, on.zeros(BF16, 3, 64),
                ExpertWeights.half(on.zeros(BF16, 4, 64, 64), on.zeros(BF16, 4, 64, 32)), on.zeros(F32, 3, 4), null, RouteOptions.top(5),
                on.zeros(BF16, 3, 64), ExpertActivation.SILU), "k is 5", "4");
        table.bad("moe_mlp", "f32 activations", Refused.DTYPE, on -> Ops.moeMlp(on.stream, on.zeros(F32, 3, 64),
                ExpertWeights.half(on.zeros(F32, 4, 64, 64), on.zeros(F32, 4, 64, 32)), on.zeros(F32, 3, 2), on.zeros(I32, 3, 2),
                on.zeros(F32, 3, 64), ExpertActivation.SILU), "x", "f32");
        table.bad("moe_mlp", "f8 without scales", Refused.NULL, on -> Ops.moeMlp(on.stream, on.zeros(BF16, 3, 64),
                ExpertWeights.f8(on.zeros(F8E4M3, 4, 64, 64), null, on.zeros(F8E4M3, 4, 64, 32), null), on.zeros(F32, 3, 2),
                on.zeros(I32, 3, 2), on.zeros(BF16, 3, 64), ExpertActivation.SILU), "w13_scales");
        table.bad("moe_grouped_gemm", "offsets of another number of experts", Refused.SHAPE, on -> Ops.moeGroupedGemm(on.stream,
                on.zeros(BF16, 8, 32), null, ExpertMatrices.half(on.zeros(BF16, 4, 16, 32)), on.zeros(I64, 4), null, on.zeros(BF16, 8, 16),
                Epilogue.NONE), "offsets", "[4]", "5");
        table.bad("moe_grouped_gemm", "b has another K", Refused.SHAPE, on -> Ops.moeGroupedGemm(on.stream,
                on.zeros(BF16, 8, 32), null, ExpertMatrices.half(on.zeros(BF16, 4, 16, 48)), on.zeros(I64, 5), null, on.zeros(BF16, 8, 16),
                Epilogue.NONE), "b", "48", "32");
        table.bad("moe_grouped_gemm", "an odd N for gate and up", Refused.SHAPE, on -> Ops.moeGroupedGemm(on.stream,
                on.zeros(BF16, 8, 32), null, ExpertMatrices.half(on.zeros(BF16, 4, 15, 32)), on.zeros(I64, 5), null, on.zeros(BF16, 8, 7),
                Epilogue.SILU_MUL), "b", "15");
        table.bad("moe_grouped_gemm", "an activation that it does not have", Refused.RANGE, on -> Ops.moeGroupedGemm(on.stream,
                on.zeros(BF16, 8, 32), null, ExpertMatrices.half(on.zeros(BF16, 4, 16, 32)), on.zeros(I64, 5), null, on.zeros(BF16, 8, 16),
                Epilogue.SILU), "act", "1");
        table.bad("moe_grouped_gemm", "f8 without the scales of a", Refused.NULL, on -> Ops.moeGroupedGemm(on.stream,
                on.zeros(F8E4M3, 8, 32), null, ExpertMatrices.f8(on.zeros(F8E4M3, 4, 16, 32), on.zeros(F32, 4, 1, 1)), on.zeros(I64, 5), null,
                on.zeros(BF16, 8, 16), Epilogue.NONE), "a_scale");
        table.bad("moe_grouped_gemm", "half activations for f8 experts", Refused.DTYPE, on -> Ops.moeGroupedGemm(on.stream,
                on.zeros(BF16, 8, 32), on.zeros(F32, 8, 1), ExpertMatrices.f8(on.zeros(F8E4M3, 4, 16, 32), on.zeros(F32, 4, 1, 1)),
                on.zeros(I64, 5), null, on.zeros(BF16, 8, 16), Epilogue.NONE), "a", "bf16", "f8e4m3");
        table.bad("moe_grouped_gemm", "a group that nobody packs", Refused.RANGE, on -> Ops.moeGroupedGemm(on.stream,
                on.zeros(BF16, 8, 96), null, ExpertMatrices.int4(48, on.zeros(U8, 4, 16, 48), on.zeros(BF16, 4, 16, 2), null), on.zeros(I64, 5),
                null, on.zeros(BF16, 8, 16), Epilogue.NONE), "group", "48");
    }

    /** Of ids [4, k], an inverse of so many entries, and lists for them; all but what is wrong fits. */
    private static void dispatch(BadCalls table, String fault, Refused refused, DType type, DType idType, int rows, int rowIds,
            int experts, int tokens, int inverse, int ranks, String... fragments) {
        table.bad("moe_dispatch", fault, refused, on -> Ops.moeDispatch(on.stream, on.zeros(type, 4, 16), on.zeros(idType, tokens, 2),
                on.zeros(I32, experts), on.zeros(I32, experts),
                new ExpertRows(on.zeros(type, rows, 16), on.zeros(I32, rowIds), on.zeros(I32, inverse), on.zeros(I32, ranks))), fragments);
    }

    private static void align(BadCalls table, String fault, Refused refused, DType idType, int k, int inverse, AlignOptions options,
            long capacity, int local, String... fragments) {
        table.bad("moe_align", fault, refused, on -> Ops.moeAlign(on.stream, on.zeros(idType, 4, k), null,
                new ExpertAlignment(on.zeros(I32, capacity), on.zeros(I32, capacity / options.block()), on.zeros(I64, local + 1),
                        on.zeros(I32, inverse), on.zeros(I32, 1)), options), fragments);
    }
}
