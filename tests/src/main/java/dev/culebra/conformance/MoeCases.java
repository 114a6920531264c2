package dev.culebra.conformance;

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
import java.util.Map;

/** Mixture of experts. */
final class MoeCases {
    private MoeCases() {}

    static void register(Map<String, Binding> all) {
        all.put("moe_route", MoeCases::moeRoute);
        all.put("moe_align", MoeCases::moeAlign);
        all.put("moe_permute", MoeCases::moePermute);
        all.put("moe_combine", MoeCases::moeCombine);
        all.put("moe_dispatch", MoeCases::moeDispatch);
        all.put("moe_mlp", MoeCases::moeMlp);
        all.put("moe_grouped_gemm", MoeCases::moeGroupedGemm);
    }

    private static void moeRoute(Call call) {
        var options = routing(call.attributes());
        var tokens = call.size("logits", 0);
        var slots = Math.max(0, options.k()) + Math.max(0, options.shared());
        Ops.moeRoute(call.stream(), call.in("logits"), call.in("bias"),
                call.out("weights", DType.F32, tokens, slots), call.out("ids", DType.I32, tokens, slots), options);
    }

    private static RouteOptions routing(Attributes attributes) {
        return new RouteOptions(
                attributes.integer("k", 0),
                attributes.oneOf("score", RouteOptions.Score.SOFTMAX),
                attributes.integer("n_group", 1),
                attributes.integer("topk_group", 1),
                attributes.flag("renormalize", false),
                attributes.integer("n_shared", 0),
                attributes.number("scale", 1));
    }

    private static void moeAlign(Call call) {
        var attributes = call.attributes();
        var experts = attributes.integer("experts", 0);
        var options = new AlignOptions(experts, attributes.integer("local_experts", experts), attributes.integer("block", 0));
        var slots = call.size("ids", 0) * call.size("ids", 1);
        var block = Math.max(1, options.block());
        var capacity = Math.ceilDiv(slots + Math.max(0L, options.localExperts()) * (block - 1), block) * block;
        var out = new ExpertAlignment(call.out("sorted", DType.I32, capacity),
                call.out("block_expert", DType.I32, capacity / block),
                call.out("offsets", DType.I64, Math.max(0, options.localExperts()) + 1L),
                call.out("inverse", DType.I32, slots), call.out("n_padded", DType.I32, 1));
        Ops.moeAlign(call.stream(), call.in("ids"), call.in("expert_map"), out, options);
    }

    private static void moePermute(Call call) {
        var k = call.attributes().integer("k", 0);
        Ops.moePermute(call.stream(), call.in("x"), call.compact("inverse"),
                call.zeros("rows", call.dtype("x"), call.size("x", 0) * Math.max(0, k), call.size("x", 1)), k);
    }

    private static void moeCombine(Call call) {
        var k = call.attributes().integer("k", 0);
        var y = call.out("y", call.dtype("rows"), call.size("weights", 0), call.size("rows", 1));
        if (call.attributes().flag("dispatched", false)) {
            Ops.moeCombineDispatched(call.stream(), call.in("rows"), call.compact("inverse"), call.in("weights"), y, k);
            return;
        }
        Ops.moeCombine(call.stream(), call.in("rows"), call.compact("inverse"), call.in("weights"), y, k);
    }

    private static void moeDispatch(Call call) {
        var ranks = call.attributes().integer("ranks", 1);
        var rows = (long) ranks * call.attributes().integer("capacity", 0);
        // Rows that no slot has stay as they are.
        var out = new ExpertRows(call.zeros("rows", call.dtype("x"), rows, call.size("x", 1)), call.out("row_ids", DType.I32, rows),
                call.out("inverse", DType.I32, call.size("ids", 0) * call.size("ids", 1)), call.out("counts", DType.I32, ranks));
        Ops.moeDispatch(call.stream(), call.in("x"), call.in("ids"), call.compact("expert_rank"), call.compact("expert_local"), out);
    }

    private static void moeMlp(Call call) {
        var attributes = call.attributes();
        var kind = attributes.oneOf("experts", ExpertWeights.Kind.HALF);
        var group = attributes.integer("group", -1);
        var act = new ExpertActivation(attributes.oneOf("act", ExpertActivation.Kind.SILU),
                attributes.number("alpha", 1.702), attributes.number("limit", 7));
        var experts = switch (kind) {
            case HALF -> new ExpertWeights(kind, group, call.in("w13"), null, null, call.in("w2"), null, null,
                    call.in("b13"), call.in("b2"));
            case F8 -> new ExpertWeights(kind, group, call.in("w13"), call.in("w13_scale"), null,
                    call.in("w2"), call.in("w2_scale"), null, call.in("b13"), call.in("b2"));
            case INT4 -> new ExpertWeights(kind, group,
                    call.in("w13_q"), call.in("w13_scales"), call.in("w13_zeros"),
                    call.in("w2_q"), call.in("w2_scales"), call.in("w2_zeros"), call.in("b13"), call.in("b2"));
        };
        if (call.has("logits")) {
            Ops.moeMlp(call.stream(), call.in("x"), experts, call.in("logits"), call.in("bias"), routing(attributes),
                    call.out("y", call.dtype("x"), call.shape("x")), act);
            return;
        }
        var y = call.out("y", call.dtype("x"), call.shape("x"));
        GemmCases.run(call, GemmCases.rows(call.in("x"), call.in("weights"), call.in("ids")), GemmCases.rows(y), (operands, results) ->
                Ops.moeMlp(call.stream(), operands[0], experts, operands[1], operands[2], results[0], act));
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
