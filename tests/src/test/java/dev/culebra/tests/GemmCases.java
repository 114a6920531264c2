package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.WeightFormat;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import dev.culebra.oracles.Checkpoint;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Matrix products over hostile shapes: no rows, one, odd, more than a tile; odd N and K; partial and uneven groups. */
final class GemmCases {
    private static final int[] ROWS = {0, 1, 17, 118};
    private static final WeightFormat[] FORMATS = WeightFormat.values();

    private GemmCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        gemm(cases, seed);
        w4a16(cases, seed);
        packing(cases, seed);
        quantization(cases, seed);
        return cases;
    }

    private static void gemm(List<Case> cases, long seed) {
        var columns = new int[] {1, 33, 70, 136};
        var depths = new int[] {0, 1, 67, 129};
        var acts = new String[] {"none", "silu", "gelu"};
        var dtypes = new DType[] {DType.F32, DType.F16, DType.BF16};
        for (var i = 0; i < 16; i++) {
            var dtype = dtypes[i % 3];
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

    /** Random weights. {@code ordered}: groups in random order; {@code uneven}: of unequal size too. */
    static Checkpoint checkpoint(Random random, int bits, int n, int k, int group, DType scales, boolean symmetric,
            boolean ordered, boolean uneven) {
        var groups = group > 0 ? Math.ceilDiv(k, group) : 1;
        var q = random.ints((long) n * k, 0, 1 << bits).toArray();
        // The field that GPTQ v1 stores all ones in is left out: zero point 0.
        var zeros = symmetric ? random.ints((long) n * groups, 1 << bits - 1, (1 << bits - 1) + 1).toArray()
                : random.ints((long) n * groups, 1, 1 << bits).toArray();
        var factors = HostTensor.zeros(scales, n, groups);
        for (var i = 0L; i < factors.elements(); i++) {
            factors.set(i, 0.01 + 0.02 * random.nextDouble());
        }
        var order = new int[k];
        for (var i = 0; i < k; i++) {
            order[i] = uneven ? random.nextInt(groups) : group > 0 ? i / group : 0;
        }
        for (var i = k - 1; ordered && i > 0; i--) {
            var j = random.nextInt(i + 1);
            var swapped = order[i];
            order[i] = order[j];
            order[j] = swapped;
        }
        return new Checkpoint(bits, n, k, groups, q, zeros, factors, order);
    }

    private static void w4a16(List<Case> cases, long seed) {
        var groups = new int[] {-1, 32, 64, 128};
        var epilogues = new String[] {"none", "silu", "silu_mul"};
        for (var i = 0; i < 36; i++) {
            var format = FORMATS[i % 6];
            var inWords = format != WeightFormat.PLAIN && format != WeightFormat.COMPRESSED_TENSORS;
            var m = ROWS[(i + i / 6) % 4];
            var n = inWords ? 72 + 8 * (i % 9) : 66 + 2 * (i % 7);
            var group = groups[(i / 6 + i) % 4];
            // GPTQ and AWQ store whole words; elsewhere the last group may be partial.
            var k = inWords ? 128 * (1 + i % 2) + (group == 32 ? 32 : 0) : 97 + 38 * (i % 4);
            var gptq = inWords && format != WeightFormat.AWQ;
            var ordered = gptq && group > 0 && i % 3 == 0;
            var uneven = ordered && i % 2 == 0;
            var symmetric = format == WeightFormat.GPTQ_AUTO || i % 4 == 1;
            var dtype = i % 2 == 0 ? DType.F16 : DType.BF16;
            var scales = inWords || i % 5 < 3 ? DType.F16 : DType.BF16;
            var epilogue = epilogues[i % 7 % 3];
            var builder = new CaseBuilder("w4a16_gemm", seed + i, format, "M", m, "N", n, "K", k, "group", group, dtype, epilogue,
                    ordered ? "ordered" : "", uneven ? "uneven" : "", symmetric ? "symmetric" : "");
            var weights = checkpoint(builder.random, 4, n, k, group, scales, symmetric, ordered, uneven);
            builder.normal("a", dtype, 1, m, k)
                    .all(weights.encode(format, !symmetric, ordered))
                    .attribute("format", format.toString())
                    .attribute("group", group)
                    .attribute("epilogue", epilogue)
                    .attribute("batch_invariant", i % 6 == 2);
            if (i % 3 == 1) {
                builder.normal("bias", dtype, 1, n);
            }
            // A product of two rounded factors: silu_mul is bounded like the chained products of the contract.
            var bound = CaseBuilder.bound(dtype) * (epilogue.equals("silu_mul") ? 1.5 : 1);
            cases.add(builder.check("c", Metric.RMS_RATIO, bound).build(dtype));
        }
    }

    private static void packing(List<Case> cases, long seed) {
        var groups = new int[] {-1, 32, 64, 128};
        for (var i = 0; i < 28; i++) {
            var format = FORMATS[i % 6];
            var plain = format == WeightFormat.PLAIN;
            var bits = plain ? new int[] {4, 6, 8}[i / 6 % 3] : i / 6 % 2 == 0 ? 4 : 8;
            var inWords = !plain && format != WeightFormat.COMPRESSED_TENSORS;
            var group = groups[(i + i / 6) % 4];
            var n = inWords ? 40 + 8 * (i % 5) : 33 + i;
            var k = inWords ? 256 : 129 + i;
            var ordered = inWords && format != WeightFormat.AWQ && group > 0 && i % 2 == 0;
            var symmetric = format == WeightFormat.GPTQ_AUTO || i % 3 == 0;
            var builder = new CaseBuilder("pack_weights", seed + i, format, bits, "bits N", n, "K", k, "group", group,
                    ordered ? "ordered" : "", symmetric ? "symmetric" : "");
            var weights = checkpoint(builder.random, bits, n, k, group, DType.F16, symmetric, ordered, ordered && i % 4 == 0);
            cases.add(builder.all(weights.encode(format, !symmetric, ordered))
                    .attribute("format", format.toString())
                    .attribute("bits", bits)
                    .attribute("group", group)
                    .check("scales", Metric.MAX_ABS, 0)
                    .build(DType.F16));
        }
    }

    private static void quantization(List<Case> cases, long seed) {
        var groups = new int[] {-1, 32, 64, 128};
        var bits = new int[] {4, 6, 8};
        var dtypes = new DType[] {DType.F32, DType.F16, DType.BF16};
        for (var i = 0; i < 12; i++) {
            var dtype = dtypes[i / 4];
            var group = groups[i % 4];
            var n = i == 5 ? 0 : 19 + i;
            var k = 131 + 32 * (i % 3);
            var symmetric = i % 2 == 0;
            var builder = new CaseBuilder("quantize_weights", seed + i, "N", n, "K", k, "group", group, bits[i % 3], "bits", dtype);
            var w = CaseBuilder.normal(builder.random, dtype, 0.02, n, k);
            var original = HostTensor.of(DType.F32, w.shape(), w.doubles());
            cases.add(builder.in("w", w)
                    .attribute("bits", bits[i % 3])
                    .attribute("group", group)
                    .attribute("symmetric", symmetric)
                    .check("dequantized", Metric.RMS_RATIO, 1.05 * plainError(w, bits[i % 3], group, symmetric))
                    .build(dtype, Map.of("dequantized", original)));
        }
    }

    /** The RMS ratio of round-to-nearest with the unclipped scale, which a search must not exceed. */
    private static double plainError(HostTensor w, int bits, int group, boolean symmetric) {
        var n = (int) w.size(0);
        var k = (int) w.size(1);
        var width = group > 0 ? group : k;
        var error = 0.0;
        var size = 0.0;
        var scale = HostTensor.zeros(w.dtype(), 1);
        for (var row = 0; row < n; row++) {
            for (var first = 0; first < k; first += width) {
                var max = 0.0;
                var min = 0.0;
                for (var i = first; i < Math.min(k, first + width); i++) {
                    max = Math.max(max, w.get(row * (long) k + i));
                    min = Math.min(min, w.get(row * (long) k + i));
                }
                var largest = (1 << bits) - 1;
                var middle = 1 << bits - 1;
                scale.set(0, symmetric ? Math.max(max, -min) / (middle - 1) : (max - min) / largest);
                var zero = symmetric ? middle : Math.rint(-min / scale.get(0));
                for (var i = first; i < Math.min(k, first + width); i++) {
                    var value = w.get(row * (long) k + i);
                    var q = Math.clamp(Math.rint(value / scale.get(0)) + zero, 0, largest);
                    error += Math.pow((q - zero) * scale.get(0) - value, 2);
                    size += value * value;
                }
            }
        }
        return size == 0 ? 0 : Math.sqrt(error / size);
    }
}
