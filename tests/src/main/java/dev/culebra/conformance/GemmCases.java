package dev.culebra.conformance;

import dev.culebra.Activation;
import dev.culebra.CheckpointWeights;
import dev.culebra.DType;
import dev.culebra.Epilogue;
import dev.culebra.Ops;
import dev.culebra.PackedWeights;
import dev.culebra.Tensor;
import dev.culebra.WeightFormat;
import java.util.Arrays;
import java.util.Map;
import java.util.function.BiConsumer;
import org.jspecify.annotations.Nullable;

/** Matrix products and packed weights. */
final class GemmCases {
    private GemmCases() {}

    /** The dtypes that a product can return, as attributes name them. */
    private enum OutDType {
        F32,
        F16,
        BF16
    }

    static void register(Map<String, Binding> all) {
        all.put("gemm", GemmCases::gemm);
        all.put("w4a16_gemm", GemmCases::w4a16Gemm);
        all.put("pack_weights", GemmCases::packWeights);
        all.put("quantize_weights", GemmCases::quantizeWeights);
    }

    private static void gemm(Call call) {
        var dtype = call.dtype("a");
        var same = dtype == DType.F32 ? OutDType.F32 : dtype == DType.BF16 ? OutDType.BF16 : OutDType.F16;
        var out = DType.valueOf(call.attributes().oneOf("out_dtype", same).name());
        var act = call.attributes().oneOf("act", Activation.NONE);
        multiply(call, call.out("c", out, call.size("a", 0), call.size("b", 0)),
                (a, c) -> Ops.gemm(call.stream(), a, call.in("b"), call.in("bias"), c, act));
    }

    private static void w4a16Gemm(Call call) {
        var epilogue = call.attributes().oneOf("epilogue", Epilogue.NONE);
        var checkpoint = checkpoint(call, 4);
        var columns = epilogue == Epilogue.SILU_MUL ? checkpoint.n() / 2 : checkpoint.n();
        var c = call.out("c", call.dtype("a"), call.size("a", 0), columns);
        var weights = Ops.packWeights(call.stream(), call.scope(), checkpoint);
        multiply(call, c, (a, rows) -> Ops.w4a16Gemm(call.stream(), a, weights, call.in("bias"), rows, epilogue));
    }

    /** All rows together; where the case asks for batch_invariant, one row at a time must give the same bits. */
    private static void multiply(Call call, Tensor c, BiConsumer<@Nullable Tensor, Tensor> product) {
        var a = call.in("a");
        product.accept(a, c);
        if (!call.attributes().flag("batch_invariant", false)) {
            return;
        }
        try (var scope = call.scope().openScope(); var row = scope.allocate(c.dtype(), 1, c.size(1));
                var input = scope.allocate(a.dtype(), 1, a.size(1))) {
            for (var i = 0L; i < a.size(0); i++) {
                input.copyFrom(call.stream(), a.slice(0, i, i + 1));
                product.accept(input, row);
                if (!Arrays.equals(row.bytes(call.stream()), c.slice(0, i, i + 1).bytes(call.stream()))) {
                    call.fault("row " + i + " alone has other bits than in the batch");
                }
            }
        }
    }

    private static void packWeights(Call call) {
        var checkpoint = checkpoint(call, call.attributes().integer("bits", 4));
        var n = checkpoint.n();
        var groups = groups(checkpoint.k(), checkpoint.group());
        var plain = new CheckpointWeights(WeightFormat.PLAIN, checkpoint.bits(), checkpoint.group(), n, checkpoint.k(),
                call.out("q", DType.U8, n, checkpoint.k()),
                call.out("scales", checkpoint.scales() == null ? DType.F16 : checkpoint.scales().dtype(), n, groups),
                call.out("zeros", DType.U8, n, groups),
                checkpoint.groupIndex() == null ? null : call.out("g_idx", DType.I32, checkpoint.k()));
        var weights = Ops.packWeights(call.stream(), call.scope(), checkpoint);
        Ops.unpackWeights(call.stream(), weights, plain);
        roundTrip(call, checkpoint, weights);
    }

    /** Unpacking to the same format gives back every bit of the checkpoint. */
    private static void roundTrip(Call call, CheckpointWeights source, PackedWeights weights) {
        try (var scope = call.scope().openScope()) {
            var zeros = source.zeros();
            var order = source.groupIndex();
            var target = new CheckpointWeights(weights.format(), source.bits(), source.group(), source.n(), source.k(),
                    scope.allocate(source.qweight().dtype(), source.qweight().shape()),
                    scope.allocate(source.scales().dtype(), source.scales().shape()),
                    zeros == null ? null : scope.allocate(zeros.dtype(), zeros.shape()),
                    order == null ? null : scope.allocate(DType.I32, order.shape()));
            Ops.unpackWeights(call.stream(), weights, target);
            var before = new Tensor[] {source.qweight(), source.scales(), zeros, order};
            var after = new Tensor[] {target.qweight(), target.scales(), target.zeros(), target.groupIndex()};
            var names = new String[] {"the weights", "the scales", "the zero points", "the group index"};
            for (var i = 0; i < names.length; i++) {
                if (before[i] != null) {
                    var expected = HostTensor.of(before[i].dtype(), before[i].shape(), before[i].bytes(call.stream()));
                    var actual = HostTensor.of(after[i].dtype(), after[i].shape(), after[i].bytes(call.stream()));
                    if (!actual.sameBits(expected)) {
                        call.fault("unpacking to " + weights.format() + " does not give back " + names[i]);
                    }
                }
            }
        }
    }

    private static void quantizeWeights(Call call) {
        var bits = call.attributes().integer("bits", 4);
        var group = call.attributes().integer("group", -1);
        var symmetric = call.attributes().flag("symmetric", true);
        var n = call.size("w", 0);
        var k = call.size("w", 1);
        var groups = groups(k, group);
        var q = call.out("q", DType.U8, n, k);
        var scales = call.out("scales", call.dtype("w"), n, groups);
        var zeros = symmetric ? null : call.out("zeros", DType.U8, n, groups);
        Ops.quantizeWeights(call.stream(), call.in("w"), q, scales, zeros, bits, group);
        if (!call.wants("dequantized")) {
            return;
        }
        var integers = call.read("q");
        var factors = call.read("scales");
        var middle = HostTensor.zeros(DType.U8, n, groups);
        for (var i = 0L; i < n * groups; i++) {
            middle.set(i, 1 << bits - 1);
        }
        var offsets = symmetric ? middle : call.read("zeros");
        var values = HostTensor.zeros(DType.F32, n, k);
        for (var row = 0L; row < n; row++) {
            for (var column = 0L; column < k; column++) {
                var g = row * groups + (group > 0 ? column / group : 0);
                values.set(row * k + column, (integers.get(row * k + column) - offsets.get(g)) * factors.get(g));
            }
        }
        call.derive("dequantized", values);
    }

    /** The checkpoint of a case, N and K as the shapes tell them. */
    static CheckpointWeights checkpoint(Call call, int bits) {
        var format = call.attributes().oneOf("format", WeightFormat.PLAIN);
        var group = call.attributes().integer("group", -1);
        var inWord = bits > 0 && bits <= 32 ? 32 / bits : 1;
        return switch (format) {
            case GPTQ_V1, GPTQ_V2, GPTQ_AUTO -> new CheckpointWeights(format, bits, group,
                    call.size("qweight", 1), call.size("qweight", 0) * inWord,
                    call.in("qweight"), call.in("scales"), call.compact("qzeros"), call.in("g_idx"));
            case AWQ -> new CheckpointWeights(format, bits, group,
                    call.size("qweight", 1) * inWord, call.size("qweight", 0),
                    call.in("qweight"), call.in("scales"), call.compact("qzeros"), null);
            case COMPRESSED_TENSORS -> new CheckpointWeights(format, bits, group,
                    call.host("weight_shape").integer(0), call.host("weight_shape").integer(1),
                    call.in("weight_packed"), call.in("weight_scale"), call.compact("weight_zero_point"),
                    call.in("weight_g_idx"));
            case PLAIN -> new CheckpointWeights(format, bits, group, call.size("q", 0), call.size("q", 1),
                    call.in("q"), call.in("scales"), call.compact("zeros"), call.in("g_idx"));
        };
    }

    static long groups(long k, int group) {
        return group > 0 ? Math.ceilDiv(k, group) : 1;
    }
}
