package dev.culebra.conformance;

import dev.culebra.DType;
import dev.culebra.Gelu;
import dev.culebra.Ops;
import java.util.Map;

/** The small operators. */
final class GlueCases {
    private GlueCases() {}

    static void register(Map<String, Binding> all) {
        all.put("rms_norm", GlueCases::rmsNorm);
        all.put("layer_norm", GlueCases::layerNorm);
        all.put("rope", GlueCases::rope);
        all.put("silu_mul", call -> Ops.siluMul(
                call.stream(), call.in("gate"), call.in("up"), call.out("y", call.dtype("gate"), call.shape("gate"))));
        all.put("softmax", call -> Ops.softmax(
                call.stream(), call.in("x"), call.out("y", call.dtype("x"), call.shape("x"))));
        all.put("embedding", call -> Ops.embedding(call.stream(), call.in("table"), call.in("ids"),
                call.out("y", call.dtype("table"), call.size("ids", 0), call.size("table", 1))));
        all.put("gelu_mul", call -> Ops.geluMul(call.stream(), call.in("gate"), call.in("up"),
                call.out("y", call.dtype("gate"), call.shape("gate")), call.attributes().oneOf("form", Gelu.ERF)));
        all.put("sigmoid_mul", call -> Ops.sigmoidMul(
                call.stream(), call.in("x"), call.in("gate"), call.out("y", call.dtype("x"), call.shape("x"))));
        all.put("add", call -> Ops.add(
                call.stream(), call.in("a"), call.in("b"), call.out("y", call.dtype("a"), call.shape("a"))));
        all.put("scale", call -> Ops.scale(call.stream(), call.in("x"),
                call.out("y", call.dtype("x"), call.shape("x")), call.attributes().number("factor", 1)));
        all.put("cast", call -> Ops.cast(call.stream(), call.in("x"),
                call.out("y", call.attributes().oneOf("dtype", call.dtype("x")), call.shape("x"))));
        all.put("copy_strided", call -> Ops.copyStrided(
                call.stream(), call.in("x"), call.out("y", call.dtype("x"), call.shape("x"))));
        all.put("sample", GlueCases::sample);
        all.put("argmax", call -> Ops.argmax(call.stream(), call.in("x"), call.out("ids", DType.I32, call.size("x", 0))));
    }

    private static void rmsNorm(Call call) {
        var dtype = call.dtype("x");
        var shape = call.shape("x");
        var sum = call.has("residual") ? call.optionalOut("residual", dtype, shape) : null;
        Ops.rmsNorm(call.stream(), call.in("x"), call.in("weight"), call.in("residual"), call.out("y", dtype, shape), sum,
                call.attributes().number("eps", 1e-6), call.attributes().flag("zero_centered", false));
    }

    private static void layerNorm(Call call) {
        Ops.layerNorm(call.stream(), call.in("x"), call.in("weight"), call.in("bias"),
                call.out("y", call.dtype("x"), call.shape("x")), call.attributes().number("eps", 1e-5));
    }

    private static void rope(Call call) {
        Ops.rope(call.stream(), call.in("x"), call.in("cos"), call.in("sin"), call.in("positions"),
                call.out("y", call.dtype("x"), call.shape("x")), call.attributes().flag("interleaved", false));
    }

    private static void sample(Call call) {
        var rows = call.size("logits", 0);
        Ops.sample(call.stream(), call.in("logits"), call.in("temperature"), call.in("top_k"), call.in("top_p"),
                call.in("min_p"), call.in("seed"), call.in("position"), call.out("ids", DType.I32, rows),
                call.optionalOut("logprob", DType.F32, rows));
    }
}
