package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.WeightFormat;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import dev.culebra.oracles.Checkpoint;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Packed weights and products with them, over hostile shapes: odd N and K; partial and uneven groups; every format. */
final class PackedGemmCases {
    private static final int[] ROWS = GemmCases.ROWS;
    private static final WeightFormat[] FORMATS = WeightFormat.values();
    private static final String[] EPILOGUES = {"none", "silu", "silu_mul"};

    private PackedGemmCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        w4a16(cases, seed);
        sparse24(cases, seed);
        w8a16(cases, seed);
        w8a16Floats(cases, seed);
        w6(cases, seed);
        w4a8(cases, seed);
        packing(cases, seed);
        quantization(cases, seed);
        return cases;
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
            var epilogue = EPILOGUES[i % 7 % 3];
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
            if (i % 12 == 11) {
                builder.nan("weight_scale", i);
            }
            cases.add(bounded(builder, dtype, epilogue).build(dtype));
        }
    }

    /** A product of two rounded factors: silu_mul is bounded like the chained products of the contract. */
    private static CaseBuilder bounded(CaseBuilder builder, DType out, String epilogue) {
        return builder.check("c", Metric.RMS_RATIO, CaseBuilder.bound(out) * (epilogue.equals("silu_mul") ? 1.5 : 1));
    }

    /** Weights of which two in four are zero, at random places. */
    private static void sparse24(List<Case> cases, long seed) {
        for (var i = 0; i < 14; i++) {
            var m = ROWS[(i + i / 4) % 4];
            var n = 34 + 30 * (i % 5);
            var k = 128 + 36 * (i % 6);
            var group = i % 2 == 0 ? 128 : -1;
            var dtype = i % 3 == 0 ? DType.BF16 : DType.F16;
            var epilogue = EPILOGUES[i % 7 % 3];
            var builder = new CaseBuilder("w4a16_sparse24_gemm", seed + i, "M", m, "N", n, "K", k, "group", group, dtype, epilogue);
            var weights = checkpoint(builder.random, 4, n, k, group, i % 5 < 3 ? DType.F16 : DType.BF16, true, false, false);
            for (var four = 0; four < n * k; four += 4) {
                var one = builder.random.nextInt(4);
                weights.q()[four + one] = 8;
                weights.q()[four + (one + 1 + builder.random.nextInt(3)) % 4] = 8;
            }
            product(cases, builder, weights.encode(WeightFormat.PLAIN, false, false), m, n, k, group, dtype, epilogue, i);
        }
    }

    /** The common rest of a product of half activations. */
    private static void product(List<Case> cases, CaseBuilder builder, Map<String, HostTensor> weights, int m, int n, int k,
            int group, DType dtype, String epilogue, int i) {
        builder.normal("a", dtype, 1, m, k)
                .all(weights)
                .attribute("group", group)
                .attribute("epilogue", epilogue)
                .attribute("batch_invariant", i % 5 == 2);
        if (i % 3 == 1) {
            builder.normal("bias", dtype, 1, n);
        }
        if (i % 7 == 3 && weights.containsKey("scales")) {
            builder.nan("scales", i);
        }
        cases.add(bounded(builder, dtype, epilogue).build(dtype));
    }

    private static void w8a16(List<Case> cases, long seed) {
        var groups = new int[] {-1, 32, 64, 128};
        for (var i = 0; i < 30; i++) {
            var format = FORMATS[i % 6];
            var inWords = format != WeightFormat.PLAIN && format != WeightFormat.COMPRESSED_TENSORS;
            var m = ROWS[(i + i / 6) % 4];
            var n = inWords ? 68 + 4 * (i % 9) : 66 + 2 * (i % 7);
            var group = groups[(i / 6 + i) % 4];
            var k = inWords ? 128 * (1 + i % 2) + (group == 32 ? 32 : 0) : 97 + 38 * (i % 4);
            var gptq = inWords && format != WeightFormat.AWQ;
            var ordered = gptq && group > 0 && i % 3 == 0;
            var symmetric = format == WeightFormat.GPTQ_AUTO || i % 4 == 1;
            var dtype = i % 2 == 0 ? DType.F16 : DType.BF16;
            var signed = format == WeightFormat.PLAIN && i / 6 % 2 == 0;
            var builder = new CaseBuilder("w8a16_gemm", seed + i, format, "M", m, "N", n, "K", k, "group", group, dtype,
                    EPILOGUES[i % 7 % 3], ordered ? "ordered" : "", symmetric ? "symmetric" : "", signed ? "signed" : "");
            var weights = checkpoint(builder.random, 8, n, k, group, inWords || i % 5 < 3 ? DType.F16 : DType.BF16, symmetric,
                    ordered, ordered && i % 2 == 0).encode(format, !symmetric, ordered);
            builder.attribute("format", format.toString()).attribute("scaling", group > 0 ? "group" : "channel");
            product(cases, builder, signed ? signed(weights, 8) : weights, m, n, k, group, dtype, EPILOGUES[i % 7 % 3], i);
        }
    }

    /** Plain weights as signed bytes around 0. */
    private static Map<String, HostTensor> signed(Map<String, HostTensor> weights, int bits) {
        var result = new LinkedHashMap<>(weights);
        result.replaceAll((name, tensor) -> {
            if (tensor.dtype() != DType.U8) {
                return tensor;
            }
            var values = tensor.doubles();
            Arrays.setAll(values, i -> values[i] - (1 << bits - 1));
            return HostTensor.of(DType.I8, tensor.shape(), values);
        });
        return result;
    }

    private static void w8a16Floats(List<Case> cases, long seed) {
        var groups = new int[] {-1, 32, 64, 128};
        for (var i = 0; i < 14; i++) {
            var m = ROWS[(i + i / 4) % 4];
            var n = 50 + 44 * (i % 4);
            var k = 97 + 53 * (i % 5);
            var blocks = i % 2 == 0;
            var group = blocks ? -1 : groups[i / 2 % 4];
            var dtype = i % 3 == 0 ? DType.BF16 : DType.F16;
            var builder = new CaseBuilder("w8a16_gemm", seed + i, blocks ? "f8e4m3 blocks" : "f8e4m3", "M", m, "N", n, "K", k,
                    "group", group, dtype, EPILOGUES[i % 7 % 3])
                    .normal("q", DType.F8E4M3, 30, n, k)
                    .attribute("scaling", blocks ? "block128" : group > 0 ? "group" : "channel");
            if (blocks) {
                builder.uniform("scales", DType.F32, 0.0005, 0.002, Math.ceilDiv(n, 128), Math.ceilDiv(k, 128));
            } else {
                builder.uniform("scales", dtype, 0.0005, 0.002, n, group > 0 ? Math.ceilDiv(k, group) : 1);
            }
            if (i % 7 == 5) {
                builder.nan("scales", 1);
            }
            product(cases, builder, Map.of(), m, n, k, group, dtype, EPILOGUES[i % 7 % 3], i);
        }
    }

    /** Six bits beside half and beside integer activations. */
    private static void w6(List<Case> cases, long seed) {
        for (var i = 0; i < 24; i++) {
            var integers = i % 2 == 1;
            var m = ROWS[(i / 2 + i / 8) % 4];
            var n = 34 + 30 * (i % 5);
            var k = 97 + 53 * (i % 7);
            var dtype = i % 3 == 0 ? DType.BF16 : DType.F16;
            var epilogue = EPILOGUES[i % 7 % 3];
            var builder = new CaseBuilder(integers ? "w6a8_gemm" : "w6a16_gemm", seed + i, "M", m, "N", n, "K", k, dtype, epilogue);
            var weights = checkpoint(builder.random, 6, n, k, 128, i % 5 < 3 ? DType.F16 : DType.BF16, true, false, false)
                    .encode(WeightFormat.PLAIN, false, false);
            if (!integers) {
                product(cases, builder, signed(weights, 6), m, n, k, 128, dtype, epilogue, i / 2);
                continue;
            }
            builder.integers("a", DType.I8, -128, 128, m, k)
                    .uniform("a_scale", DType.F32, 0.005, 0.02, m)
                    .all(signed(weights, 6))
                    .attribute("group", 128)
                    .attribute("out_dtype", dtype.toString())
                    .attribute("epilogue", epilogue)
                    .attribute("batch_invariant", i % 10 == 5);
            if (i % 3 == 1) {
                builder.normal("bias", dtype, 1, n);
            }
            if (i % 8 == 3) {
                builder.nan("scales", i);
            }
            if (i % 8 == 7 && m > 0) {
                builder.nan("a_scale", m - 1);
            }
            cases.add(bounded(builder, dtype, epilogue).build(dtype));
        }
    }

    private static void w4a8(List<Case> cases, long seed) {
        for (var i = 0; i < 14; i++) {
            var m = ROWS[(i + i / 4) % 4];
            var n = 34 + 30 * (i % 5);
            var k = 128 * (1 + i % 3);
            var dtype = i % 3 == 0 ? DType.F16 : DType.BF16;
            var epilogue = i % 2 == 0 ? "none" : "silu_mul";
            var exact = i % 4 != 2;
            var builder = new CaseBuilder("w4a8_gemm", seed + i, "M", m, "N", n, "K", k, dtype, epilogue, exact ? "exact" : "");
            // q times a power of two is an f8e4m3; of other scales three bits are left.
            var scales = HostTensor.zeros(DType.F8E4M3, n, k / 128);
            for (var s = 0L; s < scales.elements(); s++) {
                scales.set(s, exact ? Math.scalb(1.0, builder.random.nextInt(7) - 4) : 0.5 + 7 * builder.random.nextDouble());
            }
            builder.normal("a", DType.F8E4M3, 30, m, k)
                    .uniform("a_scale", DType.F32, 0.005, 0.02, m)
                    .integers("q", DType.I8, -8, 8, n, k)
                    .in("group_scale", scales)
                    .uniform("channel_scale", DType.F32, 0.005, 0.02, n)
                    .attribute("out_dtype", dtype.toString())
                    .attribute("epilogue", epilogue)
                    .attribute("batch_invariant", i % 5 == 2);
            if (i % 4 == 3) {
                builder.nan(i == 3 ? "group_scale" : "channel_scale", i);
            }
            cases.add((exact ? bounded(builder, dtype, epilogue) : builder.check("c", Metric.RMS_RATIO, 0.04)).build(dtype));
        }
    }

    private static void packing(List<Case> cases, long seed) {
        var groups = new int[] {-1, 32, 64, 128};
        for (var i = 0; i < 28; i++) {
            var format = FORMATS[i % 6];
            var plain = format == WeightFormat.PLAIN;
            var bits = plain ? new int[] {4, 6, 8}[i / 6 % 3] : i / 6 % 2 == 0 ? 4 : 8;
            var inWords = !plain && format != WeightFormat.COMPRESSED_TENSORS;
            var group = bits == 6 ? 128 : groups[(i + i / 6) % 4];
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
