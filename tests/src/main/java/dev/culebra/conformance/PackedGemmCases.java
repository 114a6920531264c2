package dev.culebra.conformance;

import static dev.culebra.conformance.GemmCases.rows;
import static dev.culebra.conformance.GemmCases.run;

import dev.culebra.CheckpointWeights;
import dev.culebra.CheckpointWeights.Operand;
import dev.culebra.CheckpointWeights.Scaling;
import dev.culebra.CheckpointWeights.Sparsity;
import dev.culebra.DType;
import dev.culebra.Epilogue;
import dev.culebra.Ops;
import dev.culebra.PackedWeights;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.WeightFormat;
import dev.culebra.conformance.GemmCases.HalfDType;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Packed weights and products with them. */
final class PackedGemmCases {
    private PackedGemmCases() {}

    /** What shares a scale of 8-bit weights, as the attribute names it. */
    private enum Shared {
        CHANNEL,
        GROUP,
        BLOCK128
    }

    static void register(Map<String, Binding> all) {
        all.put("w4a16_gemm", call -> multiply(call, checkpoint(call, 4), Ops::w4a16Gemm));
        all.put("w4a16_sparse24_gemm", call -> multiply(call, sparse(call), Ops::w4a16Sparse24Gemm));
        all.put("w8a16_gemm", call -> multiply(call, eightBits(call), Ops::w8a16Gemm));
        all.put("w6a16_gemm", call -> multiply(call, sixBits(call), Ops::w6a16Gemm));
        all.put("w6a8_gemm", PackedGemmCases::w6a8Gemm);
        all.put("w4a8_gemm", PackedGemmCases::w4a8Gemm);
        all.put("pack_weights", PackedGemmCases::packWeights);
        all.put("quantize_weights", PackedGemmCases::quantizeWeights);
    }

    private interface Product {
        void multiply(Stream stream, @Nullable Tensor a, PackedWeights w, @Nullable Tensor bias, Tensor c, Epilogue epilogue);
    }

    /** A product of half activations. */
    private static void multiply(Call call, CheckpointWeights checkpoint, Product product) {
        var epilogue = call.attributes().oneOf("epilogue", Epilogue.NONE);
        var c = out(call, call.dtype("a"), checkpoint, epilogue);
        var weights = Ops.packWeights(call.stream(), call.scope(), checkpoint);
        run(call, rows(call.in("a")), rows(c), (operands, results) ->
                product.multiply(call.stream(), operands[0], weights, call.in("bias"), results[0], epilogue));
    }

    private static Tensor out(Call call, DType dtype, CheckpointWeights checkpoint, Epilogue epilogue) {
        return call.out("c", dtype, call.size("a", 0), epilogue == Epilogue.SILU_MUL ? checkpoint.n() / 2 : checkpoint.n());
    }

    private static CheckpointWeights sparse(Call call) {
        call.compact("q"); // its sparsity is looked at on the host
        return checkpoint(call, 4).withSparsity(Sparsity.TWO_OF_FOUR);
    }

    private static CheckpointWeights eightBits(Call call) {
        var checkpoint = checkpoint(call, 8);
        return call.attributes().oneOf("scaling", Shared.GROUP) == Shared.BLOCK128
                ? checkpoint.withScaling(Scaling.BLOCK128) : checkpoint;
    }

    private static CheckpointWeights sixBits(Call call) {
        return new CheckpointWeights(WeightFormat.PLAIN, 6, call.attributes().integer("group", 128), call.size("q", 0),
                call.size("q", 1), call.in("q"), call.in("scales"), null, null);
    }

    private static void w6a8Gemm(Call call) {
        var epilogue = call.attributes().oneOf("epilogue", Epilogue.NONE);
        var checkpoint = sixBits(call).withOperand(Operand.BYTE);
        var c = out(call, GemmCases.outDType(call, HalfDType.F16), checkpoint, epilogue);
        var weights = Ops.packWeights(call.stream(), call.scope(), checkpoint);
        run(call, rows(call.in("a"), call.in("a_scale")), rows(c), (operands, results) ->
                Ops.w6a8Gemm(call.stream(), operands[0], operands[1], weights, call.in("bias"), results[0], epilogue));
    }

    private static void w4a8Gemm(Call call) {
        var epilogue = call.attributes().oneOf("epilogue", Epilogue.NONE);
        var checkpoint = new CheckpointWeights(WeightFormat.PLAIN, 4, 128, call.size("q", 0), call.size("q", 1),
                call.in("q"), call.in("group_scale"), null, null).withOperand(Operand.BYTE);
        var c = out(call, GemmCases.outDType(call, HalfDType.BF16), checkpoint, epilogue);
        var weights = Ops.packWeights(call.stream(), call.scope(), checkpoint);
        run(call, rows(call.in("a"), call.in("a_scale")), rows(c), (operands, results) -> Ops.w4a8Gemm(
                call.stream(), operands[0], operands[1], weights, call.in("channel_scale"), results[0], epilogue));
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
    private static CheckpointWeights checkpoint(Call call, int bits) {
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

    private static long groups(long k, int group) {
        return group > 0 ? Math.ceilDiv(k, group) : 1;
    }
}
