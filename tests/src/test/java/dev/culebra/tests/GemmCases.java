package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import dev.culebra.oracles.SparseMlpOracle;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.random.RandomGenerator;

/** Matrix products over hostile shapes: no rows, one, odd, more than a tile; odd N and K. */
final class GemmCases {
    static final int[] ROWS = {0, 1, 17, 118};
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};

    private GemmCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        gemm(cases, seed);
        quantizedActivations(cases, seed);
        fp8(cases, seed);
        sparseMlp(cases, seed);
        linearLogprob(cases, seed);
        return cases;
    }

    private static void gemm(List<Case> cases, long seed) {
        var columns = new int[] {1, 33, 70, 136};
        var depths = new int[] {0, 1, 67, 129};
        var acts = new String[] {"none", "silu", "gelu"};
        for (var i = 0; i < 16; i++) {
            var dtype = DTYPES[i % 3];
            var m = ROWS[i % 4];
            var n = columns[i / 4];
            var k = depths[(i + i / 4) % 4];
            var out = i % 5 == 0 ? DType.F32 : dtype;
            var builder = new CaseBuilder("gemm", seed + i, "M", m, "N", n, "K", k, dtype, "to", out)
                    .normal("a", dtype, 1, m, k)
                    .normal("b", dtype, 1, n, k)
                    .attribute("act", acts[i % acts.length])
                    .attribute("out_dtype", out.toString())
                    .attribute("batch_invariant", i % 4 == 2);
            if (i % 2 == 0) {
                builder.normal("bias", dtype, 1, n);
            }
            cases.add(builder.build(out));
        }
    }

    private static void quantizedActivations(List<Case> cases, long seed) {
        var modes = new String[] {"per_token", "per_block128", "static"};
        var depths = new int[] {1, 127, 128, 129, 400};
        for (var i = 0; i < 24; i++) {
            var dtype = DTYPES[i / 2 % 3];
            var to = i % 2 == 0 ? DType.I8 : DType.F8E4M3;
            var mode = modes[i / 6 % 3];
            var m = ROWS[(i + i / 4) % 4];
            var k = depths[i % depths.length];
            var builder = new CaseBuilder("quantize_activations", seed + i, dtype, "to", to, mode, "M", m, "K", k);
            var x = CaseBuilder.normal(builder.random, dtype, 1, m, k);
            for (var row = 0L; row < m; row += 5) {
                // Rows of zeros, of one large value, and of values near the smallest.
                for (var column = 0L; column < k; column++) {
                    var value = x.get(row * k + column);
                    x.set(row * k + column, row % 3 == 0 ? 0 : row % 3 == 1 ? value * 1e-6 : column == 0 ? 6e4 : value);
                }
            }
            builder.in("x", x).attribute("dtype", to.toString()).attribute("mode", mode);
            if (mode.equals("static")) {
                builder.in("scale", HostTensor.of(DType.F32, new long[] {1}, 0.013));
            }
            // Every backend gives the oracle's integers and scales, bit for bit.
            builder.check("q", Metric.MAX_ABS, 0);
            if (!mode.equals("static")) {
                builder.check("scales", Metric.MAX_ABS, 0);
            }
            cases.add(builder.build(dtype));
        }
    }

    private static void fp8(List<Case> cases, long seed) {
        var scalings = new String[] {"tensor", "token_channel", "block128"};
        var columns = new int[] {1, 33, 136, 70};
        var depths = new int[] {16, 144, 272, 128};
        for (var i = 0; i < 18; i++) {
            var scaling = scalings[i % 3];
            var m = ROWS[(i + i / 4) % 4];
            var n = columns[i % 4];
            var k = depths[(i + i / 3) % 4];
            var out = DTYPES[(i + i / 3) % 3];
            var builder = new CaseBuilder("fp8_gemm", seed + i, scaling, "M", m, "N", n, "K", k, "to", out)
                    .normal("a", DType.F8E4M3, 30, m, k)
                    .normal("b", DType.F8E4M3, 30, n, k)
                    .attribute("scaling", scaling)
                    .attribute("out_dtype", out.toString())
                    .attribute("batch_invariant", i % 4 == 3);
            var blocks = Math.ceilDiv(k, 128);
            switch (scaling) {
                case "tensor" -> scales(builder, new long[] {1}, new long[] {1});
                case "token_channel" -> scales(builder, new long[] {m, 1}, new long[] {n, 1});
                default -> scales(builder, new long[] {m, blocks}, new long[] {Math.ceilDiv(n, 128), blocks});
            }
            if (i % 2 == 0) {
                builder.normal("bias", out, 1, n);
            }
            if (i % 6 == 4 && m > 0) {
                builder.nan(i == 4 ? "a_scale" : "b_scale", 0);
            }
            cases.add(builder.build(out));
        }
    }

    private static void scales(CaseBuilder builder, long[] a, long[] b) {
        builder.uniform("a_scale", DType.F32, 0.005, 0.02, a).uniform("b_scale", DType.F32, 0.005, 0.02, b);
    }

    private static void sparseMlp(List<Case> cases, long seed) {
        var widths = new int[] {64, 72, 136};
        for (var i = 0; i < 12; i++) {
            var dtype = i % 2 == 0 ? DType.F16 : DType.BF16;
            var rows = i % 5;
            var width = widths[i % 3];
            var inner = 96 + 35 * (i % 4);
            var builder = new CaseBuilder("sparse_mlp", seed + i, dtype, "B", rows, "D", width, "I", inner);
            var x = CaseBuilder.normal(builder.random, dtype, 1, rows, width);
            var gate = CaseBuilder.normal(builder.random, dtype, 1 / Math.sqrt(width), inner, width);
            var h = SparseMlpOracle.gates(x.doubles(), gate.doubles(), rows, inner, width);
            builder.in("x", x)
                    .in("w_gate", gate)
                    .normal("w_up", dtype, 1 / Math.sqrt(width), inner, width)
                    .normal("w_down_t", dtype, 0.1, inner, width)
                    .attribute("batch_invariant", i % 4 == 3)
                    .attribute("threshold", i % 6 == 5 ? 0.0 : i % 6 == 4 ? 1e9 : gap(h));
            // Chained products with half intermediates.
            cases.add(builder.check("y", Metric.RMS_RATIO, 1.5 * CaseBuilder.bound(dtype)).build(dtype));
        }
    }

    /** The middle of the widest gap, relative to where it is, between magnitudes of the upper half. */
    private static double gap(double[] values) {
        var sorted = Arrays.stream(values).map(Math::abs).sorted().toArray();
        var best = 1.0;
        var widest = 1.0;
        for (var i = sorted.length / 2; i + 1 < sorted.length; i++) {
            if (sorted[i + 1] / sorted[i] > widest) {
                widest = sorted[i + 1] / sorted[i];
                best = (sorted[i] + sorted[i + 1]) / 2;
            }
        }
        return best;
    }

    private static void linearLogprob(List<Case> cases, long seed) {
        var tokens = new int[] {0, 1, 17, 70};
        var words = new int[] {1, 33, 130, 517};
        var widths = new int[] {16, 40, 67, 72};
        for (var i = 0; i < 18; i++) {
            var dtype = DTYPES[i % 3];
            var n = tokens[(i + i / 4) % 4];
            var v = words[i % 4];
            var d = widths[(i + i / 3) % 4];
            var softcap = i % 4 == 1 ? 5.0 : 0.0;
            var first = i % 5 == 0 ? 100 : 0;
            var builder = new CaseBuilder("linear_logprob", seed + i, dtype, "N", n, "V", v, "D", d, "softcap", softcap)
                    .normal("e", dtype, 1, n, d)
                    .normal("c", dtype, 2 / Math.sqrt(d), v, d)
                    .attribute("softcap", softcap)
                    .attribute("ignore_index", i % 2 == 0 ? -100 : 3)
                    .attribute("vocab_start", first)
                    .attribute("batch_invariant", i % 4 == 3);
            builder.ints("targets", DType.I64, n, t -> target(builder.random, t, first, v));
            if (i % 3 != 1) {
                var bias = CaseBuilder.normal(builder.random, dtype, 1, v);
                if (v > 1) {
                    bias.set(v / 2, Double.NEGATIVE_INFINITY); // masks a word
                }
                builder.in("bias", bias);
            }
            var bound = dtype == DType.F32 ? 1e-5 : 5e-5;
            cases.add(builder.check("logprob", Metric.RMS_RATIO, bound).check("lse", Metric.RMS_RATIO, bound).build(dtype));
        }
    }

    /** Words of the shard, ignored ones, and ones outside on either side. */
    private static int target(RandomGenerator random, int t, int first, int words) {
        return switch (t % 7) {
            case 2 -> -100;
            case 4 -> first + words;
            case 5 -> first - 1;
            default -> first + random.nextInt(words);
        };
    }
}
