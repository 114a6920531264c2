package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;
import static dev.culebra.DType.I8;
import static dev.culebra.DType.U8;

import dev.culebra.Activation;
import dev.culebra.DType;
import dev.culebra.Fp8Scaling;
import dev.culebra.LogprobOptions;
import dev.culebra.Ops;
import dev.culebra.QuantizeMode;
import dev.culebra.Tensor;

/** Bad calls of products of matrices as they are, and of what goes with them. */
final class GemmBadCalls {
    private GemmBadCalls() {}

    static void add(BadCalls table) {
        gemm(table);
        quantizeActivations(table);
        fp8(table);
        sparseMlp(table);
        linearLogprob(table);
    }

    private static void gemm(TestDevice on, Tensor a, Tensor b, Tensor bias, Tensor c) {
        Ops.gemm(on.stream, a, b, bias, c, Activation.NONE);
    }

    private static void gemm(BadCalls table) {
        table.bad("gemm", "K differs", Refused.SHAPE, on -> gemm(on, on.zeros(F16, 3, 64), on.zeros(F16, 16, 48), null,
                on.zeros(F16, 3, 16)), "a", "b", "[3, 64]", "[16, 48]");
        table.bad("gemm", "c is too narrow", Refused.SHAPE, on -> gemm(on, on.zeros(F16, 3, 64), on.zeros(F16, 16, 64), null,
                on.zeros(F16, 3, 15)), "c", "[3, 15]");
        table.bad("gemm", "rank", Refused.SHAPE, on -> gemm(on, on.zeros(F16, 3, 64, 1), on.zeros(F16, 16, 64), null,
                on.zeros(F16, 3, 16)), "a");
        table.bad("gemm", "bias is too short", Refused.SHAPE, on -> gemm(on, on.zeros(F16, 3, 64), on.zeros(F16, 16, 64),
                on.zeros(F16, 15), on.zeros(F16, 3, 16)), "bias", "15", "16");
        table.bad("gemm", "two types", Refused.DTYPE, on -> gemm(on, on.zeros(F16, 3, 64), on.zeros(BF16, 16, 64), null,
                on.zeros(F16, 3, 16)), "a", "b", "f16", "bf16");
        table.bad("gemm", "integers", Refused.DTYPE, on -> gemm(on, on.zeros(I32, 3, 64), on.zeros(I32, 16, 64), null,
                on.zeros(F16, 3, 16)), "a", "i32");
        table.bad("gemm", "no a", Refused.NULL, on -> gemm(on, null, on.zeros(F16, 16, 64), null, on.zeros(F16, 3, 16)), "a");
        table.bad("gemm", "no c", Refused.NULL, on -> gemm(on, on.zeros(F16, 3, 64), on.zeros(F16, 16, 64), null, null), "c");
        table.bad("gemm", "transposed a", Refused.STRIDE, on -> gemm(on, on.zeros(F16, 64, 3).transpose(0, 1),
                on.zeros(F16, 16, 64), null, on.zeros(F16, 3, 16)), "a");
        table.bad("gemm", "c is a", Refused.UNSUPPORTED, on -> {
            var a = on.zeros(F16, 16, 16);
            gemm(on, a, on.zeros(F16, 16, 16), null, a);
        }, "c", "a");
        table.bad("gemm", "a was closed", Refused.CLOSED, on -> {
            var a = on.zeros(F16, 3, 64);
            a.close();
            gemm(on, a, on.zeros(F16, 16, 64), null, on.zeros(F16, 3, 16));
        }, "a");
    }

    private static void quantize(TestDevice on, Tensor x, Tensor scale, Tensor q, Tensor scales, QuantizeMode mode) {
        Ops.quantizeActivations(on.stream, x, scale, q, scales, mode);
    }

    private static void quantizeActivations(BadCalls table) {
        var op = "quantize_activations";
        table.bad(op, "static without a scale", Refused.NULL, on -> quantize(on, on.zeros(F16, 3, 64), null,
                on.zeros(I8, 3, 64), null, QuantizeMode.STATIC), "scale");
        table.bad(op, "nowhere to put the scales", Refused.NULL, on -> quantize(on, on.zeros(F16, 3, 64), null,
                on.zeros(I8, 3, 64), null, QuantizeMode.PER_TOKEN), "scales");
        table.bad(op, "no x", Refused.NULL, on -> quantize(on, null, null, on.zeros(I8, 3, 64), on.zeros(F32, 3, 1),
                QuantizeMode.PER_TOKEN), "x");
        table.bad(op, "q is unsigned", Refused.DTYPE, on -> quantize(on, on.zeros(F16, 3, 64), null,
                on.zeros(U8, 3, 64), on.zeros(F32, 3, 1), QuantizeMode.PER_TOKEN), "q", "u8");
        table.bad(op, "integers", Refused.DTYPE, on -> quantize(on, on.zeros(I32, 3, 64), null,
                on.zeros(I8, 3, 64), on.zeros(F32, 3, 1), QuantizeMode.PER_TOKEN), "x", "i32");
        table.bad(op, "scales in f16", Refused.DTYPE, on -> quantize(on, on.zeros(F16, 3, 64), null,
                on.zeros(I8, 3, 64), on.zeros(F16, 3, 1), QuantizeMode.PER_TOKEN), "scales", "f16");
        table.bad(op, "q is too narrow", Refused.SHAPE, on -> quantize(on, on.zeros(F16, 3, 64), null,
                on.zeros(I8, 3, 63), on.zeros(F32, 3, 1), QuantizeMode.PER_TOKEN), "q", "[3, 63]");
        table.bad(op, "one scale for two blocks", Refused.SHAPE, on -> quantize(on, on.zeros(F16, 3, 200), null,
                on.zeros(I8, 3, 200), on.zeros(F32, 3, 1), QuantizeMode.PER_BLOCK128), "scales", "[3, 1]");
        table.bad(op, "two static scales", Refused.SHAPE, on -> quantize(on, on.zeros(F16, 3, 64), on.zeros(F32, 2),
                on.zeros(I8, 3, 64), null, QuantizeMode.STATIC), "scale", "[2]");
    }

    private static void fp8(TestDevice on, Tensor b, Tensor aScale, Tensor bScale, Tensor bias, DType out, Fp8Scaling scaling) {
        Ops.fp8Gemm(on.stream, on.zeros(F8E4M3, 4, 256), b, aScale, bScale, bias, on.zeros(out, 4, 48), scaling);
    }

    private static void fp8(BadCalls table) {
        var op = "fp8_gemm";
        table.bad(op, "K differs", Refused.SHAPE, on -> fp8(on, on.zeros(F8E4M3, 48, 128), on.zeros(F32, 1), on.zeros(F32, 1),
                null, BF16, Fp8Scaling.TENSOR), "a", "b", "[4, 256]", "[48, 128]");
        table.bad(op, "K is no multiple of 16", Refused.SHAPE, on -> Ops.fp8Gemm(on.stream, on.zeros(F8E4M3, 4, 40),
                on.zeros(F8E4M3, 48, 40), on.zeros(F32, 1), on.zeros(F32, 1), null, on.zeros(BF16, 4, 48), Fp8Scaling.TENSOR),
                "40", "16");
        table.bad(op, "half weights", Refused.DTYPE, on -> fp8(on, on.zeros(BF16, 48, 256), on.zeros(F32, 1), on.zeros(F32, 1),
                null, BF16, Fp8Scaling.TENSOR), "b", "bf16");
        table.bad(op, "no scale", Refused.NULL, on -> fp8(on, on.zeros(F8E4M3, 48, 256), null, on.zeros(F32, 1), null, BF16,
                Fp8Scaling.TENSOR), "a_scale");
        table.bad(op, "scales in f16", Refused.DTYPE, on -> fp8(on, on.zeros(F8E4M3, 48, 256), on.zeros(F32, 1), on.zeros(F16, 1),
                null, BF16, Fp8Scaling.TENSOR), "b_scale", "f16");
        table.bad(op, "a scale a token for a tensor", Refused.SHAPE, on -> fp8(on, on.zeros(F8E4M3, 48, 256), on.zeros(F32, 4, 1),
                on.zeros(F32, 1), null, BF16, Fp8Scaling.TENSOR), "a_scale", "[4, 1]");
        table.bad(op, "too few channels", Refused.SHAPE, on -> fp8(on, on.zeros(F8E4M3, 48, 256), on.zeros(F32, 4, 1),
                on.zeros(F32, 47, 1), null, BF16, Fp8Scaling.TOKEN_CHANNEL), "b_scale", "[47, 1]", "48");
        table.bad(op, "too few blocks", Refused.SHAPE, on -> fp8(on, on.zeros(F8E4M3, 48, 256), on.zeros(F32, 4, 2),
                on.zeros(F32, 1, 1), null, BF16, Fp8Scaling.BLOCK128), "b_scale", "[1, 1]");
        table.bad(op, "bias of another type", Refused.DTYPE, on -> fp8(on, on.zeros(F8E4M3, 48, 256), on.zeros(F32, 1),
                on.zeros(F32, 1), on.zeros(F16, 48), BF16, Fp8Scaling.TENSOR), "bias", "f16", "bf16");
        table.bad(op, "c in f8e4m3", Refused.DTYPE, on -> fp8(on, on.zeros(F8E4M3, 48, 256), on.zeros(F32, 1),
                on.zeros(F32, 1), null, F8E4M3, Fp8Scaling.TENSOR), "c", "f8e4m3");
    }

    private static void mlp(TestDevice on, Tensor x, Tensor up, Tensor active, float threshold) {
        Ops.sparseMlp(on.stream, x, on.zeros(BF16, 32, 64), up, on.zeros(BF16, 32, 64), on.zeros(BF16, 2, 64), active, threshold);
    }

    private static void sparseMlp(BadCalls table) {
        var op = "sparse_mlp";
        table.bad(op, "five rows", Refused.SHAPE, on -> mlp(on, on.zeros(BF16, 5, 64), on.zeros(BF16, 32, 64), null, 0), "x", "5",
                "4");
        table.bad(op, "negative threshold", Refused.RANGE, on -> mlp(on, on.zeros(BF16, 2, 64), on.zeros(BF16, 32, 64), null, -1),
                "threshold", "-1");
        table.bad(op, "a threshold that is NaN", Refused.RANGE, on -> mlp(on, on.zeros(BF16, 2, 64), on.zeros(BF16, 32, 64), null,
                Float.NaN), "threshold", "nan");
        table.bad(op, "D differs", Refused.SHAPE, on -> mlp(on, on.zeros(BF16, 2, 64), on.zeros(BF16, 32, 63), null, 0), "w_up",
                "[32, 63]");
        table.bad(op, "two types", Refused.DTYPE, on -> mlp(on, on.zeros(BF16, 2, 64), on.zeros(F16, 32, 64), null, 0), "w_up",
                "f16", "bf16");
        table.bad(op, "f32 activations", Refused.DTYPE, on -> mlp(on, on.zeros(F32, 2, 64), on.zeros(BF16, 32, 64), null, 0), "x",
                "f32");
        table.bad(op, "counts in i64", Refused.DTYPE, on -> mlp(on, on.zeros(BF16, 2, 64), on.zeros(BF16, 32, 64),
                on.zeros(I64, 2), 0), "active", "i64");
        table.bad(op, "no w_up", Refused.NULL, on -> mlp(on, on.zeros(BF16, 2, 64), null, null, 0), "w_up");
    }

    private static void logprob(TestDevice on, Tensor c, Tensor bias, Tensor targets, Tensor lse, LogprobOptions options) {
        Ops.linearLogprob(on.stream, on.zeros(F16, 4, 32), c, bias, targets, on.zeros(F32, 4), lse, options);
    }

    private static void linearLogprob(BadCalls table) {
        var op = "linear_logprob";
        var plain = LogprobOptions.DEFAULT;
        table.bad(op, "D differs", Refused.SHAPE, on -> logprob(on, on.zeros(F16, 50, 16), null, on.zeros(I64, 4), on.zeros(F32, 4),
                plain), "e", "c", "[4, 32]", "[50, 16]");
        table.bad(op, "two types", Refused.DTYPE, on -> logprob(on, on.zeros(BF16, 50, 32), null, on.zeros(I64, 4),
                on.zeros(F32, 4), plain), "c", "f16", "bf16");
        table.bad(op, "targets in i32", Refused.DTYPE, on -> logprob(on, on.zeros(F16, 50, 32), null, on.zeros(I32, 4),
                on.zeros(F32, 4), plain), "targets", "i32");
        table.bad(op, "too few targets", Refused.SHAPE, on -> logprob(on, on.zeros(F16, 50, 32), null, on.zeros(I64, 3),
                on.zeros(F32, 4), plain), "targets", "[3]", "4");
        table.bad(op, "bias is too short", Refused.SHAPE, on -> logprob(on, on.zeros(F16, 50, 32), on.zeros(F16, 49),
                on.zeros(I64, 4), on.zeros(F32, 4), plain), "bias", "[49]", "50");
        table.bad(op, "lse in f16", Refused.DTYPE, on -> logprob(on, on.zeros(F16, 50, 32), null, on.zeros(I64, 4),
                on.zeros(F16, 4), plain), "lse", "f16");
        table.bad(op, "no lse", Refused.NULL, on -> logprob(on, on.zeros(F16, 50, 32), null, on.zeros(I64, 4), null, plain), "lse");
        table.bad(op, "negative softcap", Refused.RANGE, on -> logprob(on, on.zeros(F16, 50, 32), null, on.zeros(I64, 4),
                on.zeros(F32, 4), plain.withSoftcap(-1)), "softcap", "-1");
        table.bad(op, "one place for both results", Refused.UNSUPPORTED, on -> {
            var both = on.zeros(F32, 4);
            Ops.linearLogprob(on.stream, on.zeros(F16, 4, 32), on.zeros(F16, 50, 32), null, on.zeros(I64, 4), both, both, plain);
        }, "logprob", "lse");
    }
}
