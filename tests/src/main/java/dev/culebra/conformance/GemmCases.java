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
import java.util.function.UnaryOperator;
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

    /** The dtypes that a product of byte activations with packed weights can return. */
    enum HalfDType {
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
        var c = call.out("c", outDType(call, same), call.size("a", 0), call.size("b", 0));
        run(call, rows(call.in("a")), rows(c), (operands, results) ->
                Ops.gemm(call.stream(), operands[0], call.in("b"), call.in("bias"), results[0], act));
    }

    static <E extends Enum<E>> DType outDType(Call call, E absent) {
        return DType.valueOf(call.attributes().oneOf("out_dtype", absent).name());
    }

    /** A call of which each row of the results comes of the same row of {@code operands}. */
    interface RowWise {
        void run(@Nullable Tensor[] operands, @Nullable Tensor[] results);
    }

    static @Nullable Tensor[] rows(@Nullable Tensor... tensors) {
        return tensors;
    }

    /** All rows together; where the case asks for batch_invariant, one row at a time must give the same bits. */
    static void run(Call call, @Nullable Tensor[] operands, @Nullable Tensor[] results, RowWise operator) {
        operator.run(operands, results);
        var first = results[0];
        if (first == null || !call.attributes().flag("batch_invariant", false)) {
            return;
        }
        for (var i = 0L; i < first.size(0); i++) {
            var at = i;
            try (var scope = call.scope().openScope()) {
                var alone = each(results, result -> alike(scope, row(result, at)));
                operator.run(each(operands, operand -> copy(call, scope, row(operand, at))), alone);
                for (var r = 0; r < results.length; r++) {
                    if (results[r] != null
                            && !Arrays.equals(alone[r].bytes(call.stream()), row(results[r], i).bytes(call.stream()))) {
                        call.fault("row " + i + " alone has other bits than in the batch");
                    }
                }
            }
        }
    }

    private static @Nullable Tensor[] each(@Nullable Tensor[] tensors, UnaryOperator<Tensor> function) {
        return Arrays.stream(tensors).map(tensor -> tensor == null ? null : function.apply(tensor)).toArray(Tensor[]::new);
    }

    private static Tensor row(Tensor tensor, long i) {
        return tensor.slice(0, i, i + 1);
    }

    /** In memory of its own, since in a batch a row may begin where no operator can. */
    private static Tensor copy(Call call, Scope scope, Tensor source) {
        var copy = alike(scope, source);
        copy.copyFrom(call.stream(), source);
        return copy;
    }

    /** With the stride of the batch: a kernel may be chosen by it. */
    private static Tensor alike(Scope scope, Tensor row) {
        return row.rank() < 2 ? scope.allocate(row.dtype(), row.shape())
                : scope.allocate(row.dtype(), 1, Math.max(row.stride(0), row.size(1))).slice(1, 0, row.size(1));
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
        run(call, rows(call.in("a"), whole == null ? call.in("a_scale") : null), rows(c), (operands, results) ->
                Ops.fp8Gemm(call.stream(), operands[0], call.in("b"), whole == null ? operands[1] : whole, call.in("b_scale"),
                        call.in("bias"), results[0], scaling));
    }

    private static void sparseMlp(Call call) {
        var rows = call.size("x", 0);
        var threshold = call.attributes().number("threshold", 0);
        var y = call.out("y", call.dtype("x"), rows, call.size("x", 1));
        run(call, rows(call.in("x")), rows(y, call.optionalOut("active", DType.I32, rows)), (operands, results) ->
                Ops.sparseMlp(call.stream(), operands[0], call.in("w_gate"), call.in("w_up"), call.in("w_down_t"), results[0],
                        results[1], threshold));
    }

    private static void linearLogprob(Call call) {
        var attributes = call.attributes();
        var options = new LogprobOptions(attributes.integer("ignore_index", -100), attributes.integer("vocab_start", 0),
                attributes.number("softcap", 0));
        var n = call.size("e", 0);
        run(call, rows(call.in("e"), call.in("targets")), rows(call.out("logprob", DType.F32, n), call.out("lse", DType.F32, n)),
                (operands, results) -> Ops.linearLogprob(call.stream(), operands[0], call.in("c"), call.in("bias"), operands[1],
                        results[0], results[1], options));
    }
}
