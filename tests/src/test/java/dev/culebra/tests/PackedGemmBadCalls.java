package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I8;
import static dev.culebra.DType.U8;

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

/** Bad calls of packing and of products with packed weights. */
final class PackedGemmBadCalls {
    private static final int N = 64;
    private static final int K = 128;

    private PackedGemmBadCalls() {}

    static void add(BadCalls table) {
        weights(table);
        half(table, "w4a16_gemm", Ops::w4a16Gemm, on -> integers(on, 4, 32));
        half(table, "w8a16_gemm", Ops::w8a16Gemm, on -> integers(on, 8, 32));
        half(table, "w6a16_gemm", Ops::w6a16Gemm, on -> integers(on, 6, 128));
        half(table, "w4a16_sparse24_gemm", Ops::w4a16Sparse24Gemm, PackedGemmBadCalls::sparse);
        kinds(table);
        eightBits(table);
        w6a8(table);
        w4a8(table);
        sparse24(table);
    }

    private interface Packing {
        PackedWeights pack(TestDevice on);
    }

    private interface Product {
        void multiply(Stream stream, Tensor a, PackedWeights w, Tensor bias, Tensor c, Epilogue epilogue);
    }

    private static CheckpointWeights plain(int bits, int group, Tensor q, Tensor scales) {
        return CheckpointWeights.of(WeightFormat.PLAIN, bits, group, q, scales, null, null);
    }

    private static PackedWeights pack(TestDevice on, CheckpointWeights checkpoint) {
        return Ops.packWeights(on.stream, on.scope, checkpoint);
    }

    private static PackedWeights integers(TestDevice on, int bits, int group) {
        return pack(on, plain(bits, group, on.zeros(U8, N, K), on.zeros(F16, N, K / group)));
    }

    private static PackedWeights bytes(TestDevice on, int bits) {
        return pack(on, plain(bits, 128, on.zeros(I8, N, K), on.zeros(bits == 4 ? F8E4M3 : F16, N, 1)).withOperand(Operand.BYTE));
    }

    private static PackedWeights sparse(TestDevice on) {
        return pack(on, plain(4, 128, on.zeros(I8, N, K), on.zeros(F16, N, 1)).withSparsity(Sparsity.TWO_OF_FOUR));
    }

    private static void pack(TestDevice on, WeightFormat format, int bits, int group, Tensor q, Tensor scales, Tensor zeros,
            Tensor order) {
        Ops.packWeights(on.stream, on.scope, CheckpointWeights.of(format, bits, group, q, scales, zeros, order));
    }

    private static void weights(BadCalls table) {
        table.unpackable("pack_weights", "group 48", Refused.RANGE, on -> pack(on, WeightFormat.PLAIN, 4, 48,
                on.zeros(U8, 16, 96), on.zeros(F16, 16, 2), null, null), "group", "48");
        table.unpackable("pack_weights", "5 bits", Refused.RANGE, on -> pack(on, WeightFormat.PLAIN, 5, 32,
                on.zeros(U8, 16, 64), on.zeros(F16, 16, 2), null, null), "bits", "5");
        table.unpackable("pack_weights", "6 bits in words", Refused.RANGE, on -> pack(on, WeightFormat.GPTQ_V1, 6, 32,
                on.zeros(I32, 10, 16), on.zeros(F16, 1, 16), on.zeros(I32, 1, 3), null), "bits", "6");
        table.unpackable("pack_weights", "too few scales", Refused.SHAPE, on -> pack(on, WeightFormat.PLAIN, 4, 32,
                on.zeros(U8, 16, 96), on.zeros(F16, 16, 2), null, null), "scales", "[16, 2]");
        table.unpackable("pack_weights", "scales in f32", Refused.DTYPE, on -> pack(on, WeightFormat.PLAIN, 4, 32,
                on.zeros(U8, 16, 64), on.zeros(F32, 16, 2), null, null), "scales", "f32");
        table.unpackable("pack_weights", "words as bytes", Refused.DTYPE, on -> pack(on, WeightFormat.GPTQ_V1, 4, 32,
                on.zeros(U8, 8, 16), on.zeros(F16, 2, 16), on.zeros(I32, 2, 2), null), "qweight", "u8");
        table.unpackable("pack_weights", "GPTQ without zero points", Refused.NULL, on -> pack(on, WeightFormat.GPTQ_V1, 4, 32,
                on.zeros(I32, 8, 16), on.zeros(F16, 2, 16), null, null), "zeros");
        table.unpackable("pack_weights", "g_idx is too long", Refused.SHAPE, on -> pack(on, WeightFormat.GPTQ_V1, 4, 32,
                on.zeros(I32, 8, 16), on.zeros(F16, 2, 16), on.zeros(I32, 2, 2), on.zeros(I32, 65)), "g_idx", "65", "64");
        table.unpackable("pack_weights", "g_idx names a group that is not there", Refused.RANGE, on -> {
            var order = on.scope.allocate(I32, 64);
            order.fill(on.stream, 2);
            pack(on, WeightFormat.GPTQ_V1, 4, 32, on.zeros(I32, 8, 16), on.zeros(F16, 2, 16), on.zeros(I32, 2, 2), order);
        }, "g_idx");
        table.bad("quantize_weights", "3 bits", Refused.RANGE, on -> Ops.quantizeWeights(on.stream, on.zeros(F16, 16, 128),
                on.zeros(U8, 16, 128), on.zeros(F16, 16, 1), null, 3, 128), "bits", "3");
        table.bad("quantize_weights", "too few scales", Refused.SHAPE, on -> Ops.quantizeWeights(on.stream, on.zeros(F16, 16, 128),
                on.zeros(U8, 16, 128), on.zeros(F16, 16, 3), null, 4, 32), "scales", "[16, 3]");
    }

    /** What the products of half activations refuse alike. */
    private static void half(BadCalls table, String op, Product product, Packing packing) {
        table.bad(op, "K differs", Refused.SHAPE, on -> product.multiply(on.stream, on.zeros(F16, 2, 120), packing.pack(on), null,
                on.zeros(F16, 2, N), Epilogue.NONE), "a", "[2, 120]", "[64, 128]");
        table.bad(op, "c is too wide", Refused.SHAPE, on -> product.multiply(on.stream, on.zeros(F16, 2, K), packing.pack(on), null,
                on.zeros(F16, 2, N), Epilogue.SILU_MUL), "c", "[2, 64]", "32");
        table.bad(op, "c has too few rows", Refused.SHAPE, on -> product.multiply(on.stream, on.zeros(F16, 2, K), packing.pack(on),
                null, on.zeros(F16, 1, N), Epilogue.NONE), "c", "[1, 64]");
        table.bad(op, "bias is too long", Refused.SHAPE, on -> product.multiply(on.stream, on.zeros(F16, 2, K), packing.pack(on),
                on.zeros(F16, N + 1), on.zeros(F16, 2, N), Epilogue.NONE), "bias", "[65]", "64");
        table.bad(op, "f32 activations", Refused.DTYPE, on -> product.multiply(on.stream, on.zeros(F32, 2, K), packing.pack(on),
                null, on.zeros(F32, 2, N), Epilogue.NONE), "a", "f32");
        table.bad(op, "c of another type", Refused.DTYPE, on -> product.multiply(on.stream, on.zeros(F16, 2, K), packing.pack(on),
                null, on.zeros(BF16, 2, N), Epilogue.NONE), "c", "f16", "bf16");
        table.bad(op, "bias of another type", Refused.DTYPE, on -> product.multiply(on.stream, on.zeros(F16, 2, K),
                packing.pack(on), on.zeros(F32, N), on.zeros(F16, 2, N), Epilogue.NONE), "bias", "f16", "f32");
        table.bad(op, "transposed a", Refused.STRIDE, on -> product.multiply(on.stream, on.zeros(F16, K, 2).transpose(0, 1),
                packing.pack(on), null, on.zeros(F16, 2, N), Epilogue.NONE), "a");
        table.bad(op, "c is a", Refused.UNSUPPORTED, on -> {
            var a = on.zeros(F16, 2, K);
            product.multiply(on.stream, a, packing.pack(on), null, a.slice(1, 0, N), Epilogue.NONE);
        }, "c", "a");
        table.bad(op, "no a", Refused.NULL, on -> product.multiply(on.stream, null, packing.pack(on), null, on.zeros(F16, 2, N),
                Epilogue.NONE), "a");
        table.bad(op, "no weights", Refused.NULL, on -> product.multiply(on.stream, on.zeros(F16, 2, K), null, null,
                on.zeros(F16, 2, N), Epilogue.NONE), "w");
        table.bad(op, "weights were closed", Refused.CLOSED, on -> {
            var weights = packing.pack(on);
            weights.close();
            product.multiply(on.stream, on.zeros(F16, 2, K), weights, null, on.zeros(F16, 2, N), Epilogue.NONE);
        }, "packed");
        table.bad(op, "weights of another device", Refused.DEVICE, on -> {
            try (var other = new TestDevice(on.device.toString())) {
                product.multiply(on.stream, on.zeros(F16, 2, K), packing.pack(other), null, on.zeros(F16, 2, N), Epilogue.NONE);
            }
        }, "w", "was packed for");
    }

    /** Weights that were packed for another product. */
    private static void kinds(BadCalls table) {
        table.bad("w4a16_gemm", "8-bit weights", Refused.RANGE, on -> Ops.w4a16Gemm(on.stream, on.zeros(F16, 2, K),
                integers(on, 8, 32), null, on.zeros(F16, 2, N), Epilogue.NONE), "w", "8 bits", "4");
        table.bad("w8a16_gemm", "4-bit weights", Refused.RANGE, on -> Ops.w8a16Gemm(on.stream, on.zeros(F16, 2, K),
                integers(on, 4, 32), null, on.zeros(F16, 2, N), Epilogue.NONE), "w", "4 bits", "8");
        table.bad("w6a16_gemm", "8-bit weights", Refused.RANGE, on -> Ops.w6a16Gemm(on.stream, on.zeros(F16, 2, K),
                integers(on, 8, 128), null, on.zeros(F16, 2, N), Epilogue.NONE), "w", "8 bits", "6");
        table.unpackable("w6a16_gemm", "groups of 64", Refused.RANGE, on -> integers(on, 6, 64), "group", "64", "128");
        table.bad("w6a8_gemm", "weights for half activations", Refused.RANGE, on -> Ops.w6a8Gemm(on.stream, on.zeros(I8, 2, K),
                on.zeros(F32, 2), integers(on, 6, 128), null, on.zeros(F16, 2, N), Epilogue.NONE), "w", "HALF", "BYTE");
        table.bad("w4a8_gemm", "weights for half activations", Refused.RANGE, on -> Ops.w4a8Gemm(on.stream, on.zeros(F8E4M3, 2, K),
                on.zeros(F32, 2), integers(on, 4, 128), on.zeros(F32, N), on.zeros(BF16, 2, N), Epilogue.NONE), "w", "HALF", "BYTE");
        table.bad("w4a16_sparse24_gemm", "dense weights", Refused.RANGE, on -> Ops.w4a16Sparse24Gemm(on.stream,
                on.zeros(F16, 2, K), integers(on, 4, 128), null, on.zeros(F16, 2, N), Epilogue.NONE), "w", "NONE", "TWO_OF_FOUR");
    }

    private static void eightBits(BadCalls table) {
        var op = "w8a16_gemm";
        table.unpackable(op, "too few scales", Refused.SHAPE, on -> pack(on, plain(8, -1, on.zeros(I8, 32, K),
                on.zeros(F16, 31, 1))), "scales", "[31, 1]");
        table.unpackable(op, "too few blocks", Refused.SHAPE, on -> pack(on, plain(8, -1, on.zeros(F8E4M3, 200, 320),
                on.zeros(F32, 2, 2)).withScaling(Scaling.BLOCK128)), "scales", "[2, 2]");
        table.unpackable(op, "scales of blocks in f16", Refused.DTYPE, on -> pack(on, plain(8, -1, on.zeros(F8E4M3, 200, 320),
                on.zeros(F16, 2, 3)).withScaling(Scaling.BLOCK128)), "scales", "f16");
        table.unpackable(op, "blocks and groups", Refused.RANGE, on -> pack(on, plain(8, 64, on.zeros(F8E4M3, 200, 320),
                on.zeros(F32, 2, 3)).withScaling(Scaling.BLOCK128)), "group", "64");
        table.unpackable(op, "blocks of 4 bits", Refused.RANGE, on -> pack(on, plain(4, -1, on.zeros(U8, 200, 320),
                on.zeros(F32, 2, 3)).withScaling(Scaling.BLOCK128)), "bits", "4");
    }

    private static void w6a8(TestDevice on, Tensor a, Tensor aScale, Tensor bias, DType out) {
        Ops.w6a8Gemm(on.stream, a, aScale, bytes(on, 6), bias, on.zeros(out, 2, N), Epilogue.NONE);
    }

    private static void w6a8(BadCalls table) {
        var op = "w6a8_gemm";
        table.bad(op, "K differs", Refused.SHAPE, on -> w6a8(on, on.zeros(I8, 2, 120), on.zeros(F32, 2), null, F16), "a",
                "[2, 120]", "[64, 128]");
        table.bad(op, "half activations", Refused.DTYPE, on -> w6a8(on, on.zeros(F16, 2, K), on.zeros(F32, 2), null, F16), "a",
                "f16");
        table.bad(op, "three scales for two tokens", Refused.SHAPE, on -> w6a8(on, on.zeros(I8, 2, K), on.zeros(F32, 3), null, F16),
                "a_scale", "[3]");
        table.bad(op, "scales in f16", Refused.DTYPE, on -> w6a8(on, on.zeros(I8, 2, K), on.zeros(F16, 2), null, F16), "a_scale",
                "f16");
        table.bad(op, "no scales", Refused.NULL, on -> w6a8(on, on.zeros(I8, 2, K), null, null, F16), "a_scale");
        table.bad(op, "c in f32", Refused.DTYPE, on -> w6a8(on, on.zeros(I8, 2, K), on.zeros(F32, 2), null, F32), "c", "f32");
        table.bad(op, "bias of another type", Refused.DTYPE, on -> w6a8(on, on.zeros(I8, 2, K), on.zeros(F32, 2),
                on.zeros(BF16, N), F16), "bias", "f16", "bf16");
        table.unpackable(op, "groups of 64", Refused.RANGE, on -> pack(on, plain(6, 64, on.zeros(I8, N, K),
                on.zeros(F16, N, 2)).withOperand(Operand.BYTE)), "group", "64");
        table.unpackable(op, "8 bits", Refused.RANGE, on -> pack(on, plain(8, 128, on.zeros(I8, N, K),
                on.zeros(F16, N, 1)).withOperand(Operand.BYTE)), "bits", "8");
    }

    private static void w4a8(TestDevice on, Tensor a, Tensor channelScale, DType out, Epilogue epilogue) {
        Ops.w4a8Gemm(on.stream, a, on.zeros(F32, 2), bytes(on, 4), channelScale, on.zeros(out, 2, N), epilogue);
    }

    private static void w4a8(BadCalls table) {
        var op = "w4a8_gemm";
        table.bad(op, "K differs", Refused.SHAPE, on -> w4a8(on, on.zeros(F8E4M3, 2, 256), on.zeros(F32, N), BF16, Epilogue.NONE),
                "a", "[2, 256]", "[64, 128]");
        table.bad(op, "integer activations", Refused.DTYPE, on -> w4a8(on, on.zeros(I8, 2, K), on.zeros(F32, N), BF16,
                Epilogue.NONE), "a", "i8");
        table.bad(op, "too few channels", Refused.SHAPE, on -> w4a8(on, on.zeros(F8E4M3, 2, K), on.zeros(F32, N - 1), BF16,
                Epilogue.NONE), "channel_scale", "[63]");
        table.bad(op, "no scales of channels", Refused.NULL, on -> w4a8(on, on.zeros(F8E4M3, 2, K), null, BF16, Epilogue.NONE),
                "channel_scale");
        table.bad(op, "c in f32", Refused.DTYPE, on -> w4a8(on, on.zeros(F8E4M3, 2, K), on.zeros(F32, N), F32, Epilogue.NONE), "c",
                "f32");
        table.bad(op, "silu", Refused.RANGE, on -> w4a8(on, on.zeros(F8E4M3, 2, K), on.zeros(F32, N), BF16, Epilogue.SILU),
                "epilogue");
        table.unpackable(op, "too many groups", Refused.SHAPE, on -> pack(on, plain(4, 128, on.zeros(I8, N, 256),
                on.zeros(F8E4M3, N, 4)).withOperand(Operand.BYTE)), "scales", "[64, 4]");
        table.unpackable(op, "scales of groups in f16", Refused.DTYPE, on -> pack(on, plain(4, 128, on.zeros(I8, N, 256),
                on.zeros(F16, N, 2)).withOperand(Operand.BYTE)), "scales", "f16");
    }

    private static void sparse24(BadCalls table) {
        var op = "w4a16_sparse24_gemm";
        table.unpackable(op, "three of four", Refused.RANGE, on -> {
            var q = new byte[N * K];
            q[5 * K + 8] = 1;
            q[5 * K + 9] = -1;
            q[5 * K + 11] = 7;
            var tensor = on.zeros(I8, N, K);
            tensor.setBytes(on.stream, q);
            pack(on, plain(4, 128, tensor, on.zeros(F16, N, 1)).withSparsity(Sparsity.TWO_OF_FOUR));
        }, "2:4", "row 5", "8");
        table.unpackable(op, "groups of 32", Refused.RANGE, on -> pack(on, plain(4, 32, on.zeros(I8, N, K),
                on.zeros(F16, N, 4)).withSparsity(Sparsity.TWO_OF_FOUR)), "group", "32");
        table.unpackable(op, "8 bits", Refused.RANGE, on -> pack(on, plain(8, 128, on.zeros(I8, N, K),
                on.zeros(F16, N, 1)).withSparsity(Sparsity.TWO_OF_FOUR)), "bits", "8");
    }
}
