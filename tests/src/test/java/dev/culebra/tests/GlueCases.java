package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import java.util.ArrayList;
import java.util.List;

/** The small operators: no rows, one, many; widths around a vector, a warp and a block. */
final class GlueCases {
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};
    private static final int[] ROWS = {0, 1, 17, 118};
    private static final int[] WIDTHS = {1, 7, 64, 129, 1030};

    private GlueCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 12; i++) {
            var dtype = DTYPES[i % 3];
            var rows = ROWS[i % 4];
            var width = WIDTHS[i % 5];
            norms(cases, seed + i, i, dtype, rows, width);
            products(cases, seed + i, i, dtype, rows, width);
            choices(cases, seed + i, i, dtype, rows, width);
            rope(cases, seed + i, i, dtype, rows);
            elementwise(cases, seed + i, i, rows, width);
        }
        return cases;
    }

    private static CaseBuilder builder(String op, long seed, DType dtype, int rows, int width) {
        return new CaseBuilder(op, seed, "T", rows, "width", width, dtype);
    }

    private static void norms(List<Case> cases, long seed, int i, DType dtype, int rows, int width) {
        var rms = builder("rms_norm", seed, dtype, rows, width)
                .normal("x", dtype, 2, rows, width)
                .normal("weight", dtype, 1, width)
                .attribute("eps", 1e-6)
                .attribute("zero_centered", i % 2 == 0);
        if (i % 3 != 1) {
            rms.normal("residual", dtype, 2, rows, width);
        }
        cases.add(rms.build(dtype));
        var layer = builder("layer_norm", seed, dtype, rows, Math.max(width, 2))
                .normal("x", dtype, 2, rows, Math.max(width, 2))
                .normal("weight", dtype, 1, Math.max(width, 2))
                .attribute("eps", 1e-5);
        if (i % 2 == 0) {
            layer.normal("bias", dtype, 1, Math.max(width, 2));
        }
        cases.add(layer.build(dtype));
    }

    private static void products(List<Case> cases, long seed, int i, DType dtype, int rows, int width) {
        cases.add(builder("silu_mul", seed, dtype, rows, width)
                .normal("gate", dtype, 4, rows, width).normal("up", dtype, 1, rows, width).build(dtype));
        cases.add(builder("gelu_mul", seed, dtype, rows, width)
                .attribute("form", i % 2 == 0 ? "erf" : "tanh")
                .normal("gate", dtype, 2, rows, width).normal("up", dtype, 1, rows, width).build(dtype));
        cases.add(builder("sigmoid_mul", seed, dtype, rows, width)
                .normal("x", dtype, 2, rows, width).normal("gate", dtype, 2, rows, i % 2 == 0 ? width : 1).build(dtype));
        cases.add(builder("softmax", seed, dtype, rows, width).normal("x", dtype, 5, rows, width).build(dtype));
    }

    private static void choices(List<Case> cases, long seed, int i, DType dtype, int rows, int width) {
        // Few values: ties in most rows.
        var ties = builder("argmax", seed, dtype, rows, width);
        var x = HostTensor.zeros(dtype, rows, width);
        for (var j = 0L; j < x.elements(); j++) {
            x.set(j, ties.random.nextInt(20) - 30);
        }
        cases.add(ties.in("x", x).build(dtype));

        var ids = i % 2 == 0 ? DType.I32 : DType.I64;
        var lookup = builder("embedding", seed, dtype, rows, width).normal("table", dtype, 1, 37, width);
        cases.add(lookup.ints("ids", ids, rows, t -> lookup.random.nextInt(38) - 1).check("y", Metric.MAX_ABS, 0).build(dtype));

        var drawn = Math.min(rows, 19);
        var draw = builder("sample", seed, dtype, drawn, width);
        cases.add(draw.normal("logits", dtype, 2, drawn, width)
                .ints("top_k", DType.I32, drawn, row -> row % 3 == 0 ? 0 : draw.random.nextInt(width) + 1)
                .uniform("temperature", DType.F32, 0.3, 1.5, drawn)
                .uniform("top_p", DType.F32, 0.3, 1, drawn)
                .uniform("min_p", DType.F32, 0, 0.2, drawn)
                .ints("seed", DType.I64, drawn, row -> draw.random.nextInt())
                .ints("position", DType.I64, drawn, row -> draw.random.nextInt(100_000))
                .check("logprob", Metric.MAX_ABS, 1e-4)
                .build(dtype));
    }

    private static void rope(List<Case> cases, long seed, int i, DType dtype, int rows) {
        var heads = 1 + i % 3;
        var width = new int[] {8, 66, 128}[i % 3];
        var pairs = i % 2 == 0 ? width / 2 : width / 4;
        var positions = 50;
        var builder = new CaseBuilder("rope", seed, "T", rows, "H", heads, "D", width, "R", 2 * pairs, dtype);
        var cos = HostTensor.zeros(DType.F32, positions, pairs);
        var sin = HostTensor.zeros(DType.F32, positions, pairs);
        for (var p = 0; p < positions; p++) {
            for (var j = 0; j < pairs; j++) {
                cos.set(p * (long) pairs + j, Math.cos(p * Math.pow(10000, -(double) j / pairs)));
                sin.set(p * (long) pairs + j, Math.sin(p * Math.pow(10000, -(double) j / pairs)));
            }
        }
        cases.add(builder.normal("x", dtype, 1, rows, heads, width)
                .in("cos", cos)
                .in("sin", sin)
                .ints("positions", DType.I64, rows, t -> builder.random.nextInt(positions))
                .attribute("interleaved", i % 4 > 1)
                .build(dtype));
    }

    private static void elementwise(List<Case> cases, long seed, int i, int rows, int width) {
        var dtype = new DType[] {DType.F32, DType.F16, DType.BF16, DType.I32, DType.I64}[i % 5];
        var add = builder("add", seed, dtype, rows, width);
        cases.add(add.normal("a", dtype, dtype.isFloat() ? 1 : 1000, rows, width)
                .normal("b", dtype, dtype.isFloat() ? 1 : 1000, rows, width).build(dtype));
        var half = DTYPES[i % 3];
        cases.add(builder("scale", seed, half, rows, width)
                .normal("x", half, 1, 3, rows, width).attribute("factor", -0.375).build(half));
        var target = DTYPES[(i + 1) % 3];
        cases.add(new CaseBuilder("cast", seed, "T", rows, "width", width, half, "to", target)
                .normal("x", half, 1, rows, width).attribute("dtype", target.toString()).build(target));
        var any = DType.values()[i % 8];
        cases.add(builder("copy_strided", seed, any, rows, width)
                .uniform("x", any, 0, 100, 2, rows, width).check("y", Metric.MAX_ABS, 0).build(any));
    }
}
