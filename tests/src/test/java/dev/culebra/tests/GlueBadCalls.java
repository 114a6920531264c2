package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;

import dev.culebra.Gelu;
import dev.culebra.Ops;

/** Bad calls of the glue. */
final class GlueBadCalls {
    private GlueBadCalls() {}

    static void add(BadCalls table) {
        table.bad("rms_norm", "weight is too short", Refused.SHAPE, on -> Ops.rmsNorm(on.stream, on.zeros(F16, 4, 64),
                on.zeros(F16, 63), null, on.zeros(F16, 4, 64), null, 1e-6f, false), "weight", "63", "64");
        table.bad("rms_norm", "a sum without a residual", Refused.NULL, on -> Ops.rmsNorm(on.stream, on.zeros(F16, 4, 64),
                on.zeros(F16, 64), null, on.zeros(F16, 4, 64), on.zeros(F16, 4, 64), 1e-6f, false), "residual");
        table.bad("rms_norm", "negative eps", Refused.RANGE, on -> Ops.rmsNorm(on.stream, on.zeros(F16, 4, 64),
                on.zeros(F16, 64), null, on.zeros(F16, 4, 64), null, -1, false), "eps", "-1");
        table.bad("rms_norm", "y overlaps x", Refused.UNSUPPORTED, on -> {
            var x = on.zeros(F16, 5, 64);
            Ops.rmsNorm(on.stream, x.slice(0, 0, 4), on.zeros(F16, 64), null, x.slice(0, 1, 5), null, 1e-6f, false);
        }, "y", "x");
        table.bad("layer_norm", "bias is too short", Refused.SHAPE, on -> Ops.layerNorm(on.stream, on.zeros(F32, 4, 64),
                on.zeros(F32, 64), on.zeros(F32, 32), on.zeros(F32, 4, 64), 1e-5f), "bias", "32", "64");
        table.bad("layer_norm", "two types", Refused.DTYPE, on -> Ops.layerNorm(on.stream, on.zeros(F32, 4, 64),
                on.zeros(F16, 64), null, on.zeros(F32, 4, 64), 1e-5f), "weight", "f16");
        table.bad("rope", "tables wider than a head", Refused.SHAPE, on -> Ops.rope(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(F32, 8, 40), on.zeros(F32, 8, 40), on.zeros(I64, 4), on.zeros(BF16, 4, 2, 64), false), "cos", "40", "64");
        table.bad("rope", "positions in i32", Refused.DTYPE, on -> Ops.rope(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(F32, 8, 32), on.zeros(F32, 8, 32), on.zeros(I32, 4), on.zeros(BF16, 4, 2, 64), false), "positions", "i32");
        table.bad("silu_mul", "shapes differ", Refused.SHAPE, on -> Ops.siluMul(on.stream, on.zeros(F16, 3, 16),
                on.zeros(F16, 3, 8), on.zeros(F16, 3, 16)), "up", "[3, 8]");
        table.bad("silu_mul", "no up", Refused.NULL, on -> Ops.siluMul(on.stream, on.zeros(F16, 3, 16), null,
                on.zeros(F16, 3, 16)), "up");
        table.bad("gelu_mul", "integers", Refused.DTYPE, on -> Ops.geluMul(on.stream, on.zeros(I32, 3, 16),
                on.zeros(I32, 3, 16), on.zeros(I32, 3, 16), Gelu.ERF), "i32");
        table.bad("sigmoid_mul", "two gates a row", Refused.SHAPE, on -> Ops.sigmoidMul(on.stream, on.zeros(F16, 3, 16),
                on.zeros(F16, 3, 2), on.zeros(F16, 3, 16)), "gate", "[3, 2]");
        table.bad("softmax", "integers", Refused.DTYPE, on -> Ops.softmax(on.stream, on.zeros(I32, 2, 8), on.zeros(I32, 2, 8)), "x", "i32");
        table.bad("softmax", "rank 1", Refused.SHAPE, on -> Ops.softmax(on.stream, on.zeros(F32, 8), on.zeros(F32, 8)), "x", "[8]");
        table.bad("embedding", "float ids", Refused.DTYPE, on -> Ops.embedding(on.stream, on.zeros(F16, 4, 8), on.zeros(F32, 3),
                on.zeros(F16, 3, 8)), "ids", "f32");
        table.bad("embedding", "y is too narrow", Refused.SHAPE, on -> Ops.embedding(on.stream, on.zeros(F16, 4, 8), on.zeros(I32, 3),
                on.zeros(F16, 3, 7)), "y", "[3, 7]");
        table.bad("argmax", "no candidate", Refused.SHAPE, on -> Ops.argmax(on.stream, on.zeros(F32, 2, 0), on.zeros(I32, 2)), "x", "[2, 0]");
        table.bad("argmax", "ids in i64", Refused.DTYPE, on -> Ops.argmax(on.stream, on.zeros(F32, 2, 4), on.zeros(I64, 2)), "ids", "i64");
        table.bad("add", "shapes differ", Refused.SHAPE, on -> Ops.add(on.stream, on.zeros(F32, 2, 4), on.zeros(F32, 2, 5),
                on.zeros(F32, 2, 4)), "b", "[2, 5]");
        table.bad("add", "elements of y overlap", Refused.STRIDE, on -> Ops.add(on.stream, on.zeros(F32, 2, 4), on.zeros(F32, 2, 4),
                on.zeros(F32, 1, 4).expand(0, 2)), "y");
        table.bad("scale", "integers", Refused.DTYPE, on -> Ops.scale(on.stream, on.zeros(I32, 2, 4), on.zeros(I32, 2, 4), 2), "x", "i32");
        table.bad("cast", "shapes differ", Refused.SHAPE, on -> Ops.cast(on.stream, on.zeros(F32, 2, 4), on.zeros(F16, 4, 2)), "y", "[4, 2]");
        table.bad("copy_strided", "two types", Refused.DTYPE, on -> Ops.copyStrided(on.stream, on.zeros(F32, 2, 4),
                on.zeros(I32, 2, 4)), "y", "i32");
        table.bad("copy_strided", "rank 7", Refused.SHAPE, on -> Ops.copyStrided(on.stream, on.zeros(F32, 1, 1, 1, 1, 1, 1, 2),
                on.zeros(F32, 1, 1, 1, 1, 1, 1, 2)), "x");
        table.bad("sample", "a seed for another batch", Refused.SHAPE, on -> Ops.sample(on.stream, on.zeros(F32, 2, 9), on.zeros(F32, 2),
                on.zeros(I32, 2), on.zeros(F32, 2), on.zeros(F32, 2), on.zeros(I64, 3), on.zeros(I64, 2), on.zeros(I32, 2), null),
                "seed", "3", "2");
        table.bad("sample", "no temperature", Refused.NULL, on -> Ops.sample(on.stream, on.zeros(F32, 2, 9), null,
                on.zeros(I32, 2), on.zeros(F32, 2), on.zeros(F32, 2), on.zeros(I64, 2), on.zeros(I64, 2), on.zeros(I32, 2), null),
                "temperature");
    }
}
