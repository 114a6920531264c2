package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;
import static dev.culebra.DType.U8;

import dev.culebra.Epilogue;
import dev.culebra.ExpertActivation;
import dev.culebra.ExpertMatrices;
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
        table.bad("moe_mlp", "w2 has another width", Refused.SHAPE, on -> Ops.moeMlp(on.stream, on.zeros(BF16, 3, 64),
                ExpertWeights.half(on.zeros(BF16, 4, 64, 64), on.zeros(BF16, 4, 64, 16)), on.zeros(F32, 3, 2), on.zeros(I32, 3, 2),
                on.zeros(BF16, 3, 64), ExpertActivation.SILU), "w2", "16", "32");
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
}
