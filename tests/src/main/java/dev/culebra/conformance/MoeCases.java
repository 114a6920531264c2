package dev.culebra.conformance;

import dev.culebra.DType;
import dev.culebra.Epilogue;
import dev.culebra.ExpertActivation;
import dev.culebra.ExpertMatrices;
import dev.culebra.ExpertWeights;
import dev.culebra.Ops;
import dev.culebra.RouteOptions;
import java.util.Map;

/** Mixture of experts. */
final class MoeCases {
    private MoeCases() {}

    static void register(Map<String, Binding> all) {
        all.put("moe_route", MoeCases::moeRoute);
        all.put("moe_mlp", MoeCases::moeMlp);
        all.put("moe_grouped_gemm", MoeCases::moeGroupedGemm);
    }

    private static void moeRoute(Call call) {
        var attributes = call.attributes();
        var k = attributes.integer("k", 0);
        var shared = attributes.integer("n_shared", 0);
        var options = new RouteOptions(
                k,
                attributes.oneOf("score", RouteOptions.Score.SOFTMAX),
                attributes.integer("n_group", 1),
                attributes.integer("topk_group", 1),
                attributes.flag("renormalize", false),
                shared,
                attributes.number("scale", 1));
        var tokens = call.size("logits", 0);
        var slots = Math.max(0, k) + Math.max(0, shared);
        Ops.moeRoute(call.stream(), call.in("logits"), call.in("bias"),
                call.out("weights", DType.F32, tokens, slots), call.out("ids", DType.I32, tokens, slots), options);
    }

    private static void moeMlp(Call call) {
        var attributes = call.attributes();
        var kind = attributes.oneOf("experts", ExpertWeights.Kind.HALF);
        var group = attributes.integer("group", -1);
        var act = new ExpertActivation(attributes.oneOf("act", ExpertActivation.Kind.SILU),
                attributes.number("alpha", 1), attributes.number("limit", 0));
        var experts = switch (kind) {
            case HALF -> new ExpertWeights(kind, group, call.in("w13"), null, null, call.in("w2"), null, null,
                    call.in("b13"), call.in("b2"));
            case F8 -> new ExpertWeights(kind, group, call.in("w13"), call.in("w13_scale"), null,
                    call.in("w2"), call.in("w2_scale"), null, call.in("b13"), call.in("b2"));
            case INT4 -> new ExpertWeights(kind, group,
                    call.in("w13_q"), call.in("w13_scales"), call.in("w13_zeros"),
                    call.in("w2_q"), call.in("w2_scales"), call.in("w2_zeros"), call.in("b13"), call.in("b2"));
        };
        Ops.moeMlp(call.stream(), call.in("x"), experts, call.in("weights"), call.in("ids"),
                call.out("y", call.dtype("x"), call.shape("x")), act);
    }

    private static void moeGroupedGemm(Call call) {
        var attributes = call.attributes();
        var kind = attributes.oneOf("experts", ExpertWeights.Kind.HALF);
        var group = attributes.integer("group", -1);
        var act = attributes.oneOf("act", Epilogue.NONE);
        var b = kind == ExpertWeights.Kind.INT4 ? "b_q" : "b";
        var same = kind != ExpertWeights.Kind.F8 && call.dtype("a") == DType.F16 ? GemmCases.OutDType.F16 : GemmCases.OutDType.BF16;
        var rows = call.has("gather") ? call.size("gather", 0) : call.size("a", 0);
        var columns = act == Epilogue.SILU_MUL ? call.size(b, 1) / 2 : call.size(b, 1);
        var matrices = new ExpertMatrices(kind, group, call.in(b),
                kind == ExpertWeights.Kind.HALF ? null : call.in(kind == ExpertWeights.Kind.F8 ? "b_scale" : "b_scales"),
                kind == ExpertWeights.Kind.INT4 ? call.in("b_zeros") : null);
        // Rows that belong to no expert stay as they are.
        var c = call.zeros("c", GemmCases.outDType(call, same), rows, columns);
        Ops.moeGroupedGemm(call.stream(), call.in("a"), call.in("a_scale"), matrices, call.in("offsets"), call.in("gather"), c, act);
    }
}
