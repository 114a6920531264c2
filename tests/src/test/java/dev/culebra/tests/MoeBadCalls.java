package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;

import dev.culebra.ExpertActivation;
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
    }
}
