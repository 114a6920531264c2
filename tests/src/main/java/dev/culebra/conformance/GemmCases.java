package dev.culebra.conformance;

import dev.culebra.Activation;
import dev.culebra.DType;
import dev.culebra.Fp8Scaling;
import dev.culebra.LogprobOptions;
import dev.culebra.Ops;
import dev.culebra.QuantizeMode;
import dev.culebra.Scope;
import dev.culebra.Tensor;
import java.util.Arrays;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Products of matrices as they are, and what goes with them. */
final class GemmCases {
    private GemmCases() {}

    /** The dtypes that a product can return, as attributes name them. */
    enum OutDType {
        F32,
        F16,
        BF16
    }

    /** The dtypes of quantized activations, as attributes name them. */
    private enum ByteDType {
        I8,
        F8E4M3
    }

    static void register(Map<String, Binding> all) {
        all.put("gemm", GemmCases::gemm);
        all.put("quantize_activations", GemmCases::quantizeActivations);
        all.put("fp8_gemm", GemmCases::fp8Gemm);
        all.put("sparse_mlp", GemmCases::sparseMlp);
        all.put("linear_logprob", GemmCases::linearLogprob);
    }

    private static void gemm(Call call) {
        var dtype = call.dtype("a");
        var same = dtype == DType.F32 ? OutDType.F32 : dtype == DType.BF16 ? OutDType.BF16 : OutDType.F16;
        var act = call.attributes().oneOf("act", Activation.NONE);
        multiply(call, call.in("a"), null, call.out("c", outDType(call, same), call.size("a", 0), call.size("b", 0)),
                (a, aScale, c) -> Ops.gemm(call.stream(), a, call.in("b"), call.in("bias"), c, act));
    }

    static DType outDType(Call call, OutDType absent) {
        return DType.valueOf(call.attributes().oneOf("out_dtype", absent).name());
    }

    /** A product of the rows of {@code a}, perhaps with scales a row. */
    interface Product {
        void multiply(@Nullable Tensor a, @Nullable Tensor aScale, Tensor c);
    }

    /** All rows together; where the case asks for batch_invariant, one row at a time must give the same bits. */
    static void multiply(Call call, @Nullable Tensor a, @Nullable Tensor aScale, Tensor c, Product product) {
        product.multiply(a, aScale, c);
        if (!call.attributes().flag("batch_invariant", false)) {
            return;
        }
        for (var i = 0L; i < c.size(0); i++) {
            try (var scope = call.scope().openScope()) {
                var alone = scope.allocate(c.dtype(), 1, c.size(1));
                product.multiply(row(call, scope, a, i), row(call, scope, aScale, i), alone);
                if (!Arrays.equals(alone.bytes(call.stream()), c.slice(0, i, i + 1).bytes(call.stream()))) {
                    call.fault("row " + i + " alone has other bits than in the batch");
                }
            }
        }
    }

    /** A row in memory of its own: in a batch it may begin where no operator can. */
    private static @Nullable Tensor row(Call call, Scope scope, @Nullable Tensor rows, long i) {
        if (rows == null) {
            return null;
        }
        var source = rows.slice(0, i, i + 1);
        var row = scope.allocate(source.dtype(), source.shape());
        row.copyFrom(call.stream(), source);
        return row;
    }

    private static void quantizeActivations(Call call) {
        var mode = call.attributes().oneOf("mode", QuantizeMode.PER_TOKEN);
        var dtype = DType.valueOf(call.attributes().oneOf("dtype", ByteDType.I8).name());
        var m = call.size("x", 0);
        var k = call.size("x", 1);
        var scales = switch (mode) {
            case PER_TOKEN -> call.out("scales", DType.F32, m, 1);
            case PER_BLOCK128 -> call.out("scales", DType.F32, m, Math.ceilDiv(k, 128));
            case STATIC -> null;
        };
        Ops.quantizeActivations(call.stream(), call.in("x"), call.in("scale"), call.out("q", dtype, m, k), scales, mode);
    }

    private static void fp8Gemm(Call call) {
        var scaling = call.attributes().oneOf("scaling", Fp8Scaling.TENSOR);
        var c = call.out("c", outDType(call, OutDType.BF16), call.size("a", 0), call.size("b", 0));
        var whole = scaling == Fp8Scaling.TENSOR ? call.in("a_scale") : null;
        multiply(call, call.in("a"), whole == null ? call.in("a_scale") : null, c, (a, aScale, rows) -> Ops.fp8Gemm(
                call.stream(), a, call.in("b"), whole == null ? aScale : whole, call.in("b_scale"), call.in("bias"), rows,
                scaling));
    }

    private static void sparseMlp(Call call) {
        var rows = call.size("x", 0);
        Ops.sparseMlp(call.stream(), call.in("x"), call.in("w_gate"), call.in("w_up"), call.in("w_down_t"),
                call.out("y", call.dtype("x"), rows, call.size("x", 1)), call.optionalOut("active", DType.I32, rows),
                call.attributes().number("threshold", 0));
    }

    private static void linearLogprob(Call call) {
        var attributes = call.attributes();
        var options = new LogprobOptions(attributes.integer("ignore_index", -100), attributes.integer("vocab_start", 0),
                attributes.number("softcap", 0));
        var n = call.size("e", 0);
        Ops.linearLogprob(call.stream(), call.in("e"), call.in("c"), call.in("bias"), call.in("targets"),
                call.out("logprob", DType.F32, n), call.out("lse", DType.F32, n), options);
    }
}
