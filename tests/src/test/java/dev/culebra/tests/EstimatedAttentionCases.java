package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/** Attention to chosen blocks: tail blocks, every class of blocks, ragged and empty sequences, dense heads beside sparse ones. */
final class EstimatedAttentionCases {
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};

    private EstimatedAttentionCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 6; i++) {
            cases.add(sparseLinear(seed + i, i, DTYPES[i % 3]));
            cases.add(estimatedSparse(seed + i, i, DTYPES[i % 3]));
        }
        return cases;
    }

    private static Case sparseLinear(long seed, int i, DType dtype) {
        var length = new int[] {75, 16, 150, 0, 97, 33}[i];
        var width = new int[] {64, 40, 128}[i % 3];
        var builder = new CaseBuilder("sparse_linear_attention", seed, dtype, i, "L", length, "D", width);
        builder.normal("q", dtype, 1, 1, 2, length, width).normal("k", dtype, 1, 1, 2, length, width)
                .normal("v", dtype, 1, 1, 2, length, width)
                .attribute("block", i % 2 == 0 ? 16 : 32)
                .attribute("critical", new double[] {0.3, 0, 0.25}[i % 3])
                .attribute("negligible", new double[] {0.2, 1, 0}[i / 2])
                .attribute("phi", new String[] {"softmax", "elu1", "relu"}[(i + i / 3) % 3])
                .attribute("mode", new String[] {"paper", "complement", "all"}[i / 2])
                .attribute("eps", new double[] {0.5, 1e-5, 2}[i % 3]);  // beside sums of a few units
        if (i % 2 == 0) {
            builder.normal("proj_w", dtype, 1 / Math.sqrt(width), width, width);
        }
        if (i % 4 == 0) {
            builder.normal("proj_b", dtype, 1, width);
        }
        return builder.build(dtype);
    }

    private static Case estimatedSparse(long seed, int i, DType dtype) {
        var lengths = new int[][] {{7, 0, 33}, {1, 65}, {40, 5}}[i % 3];
        var keyLengths = new int[][] {{90, 4, 140}, {150, 65}, {20, 100}}[i % 3];
        var keyHeads = 1 + i % 2;
        var heads = keyHeads * (1 + i % 3);
        var width = new int[] {64, 40, 128}[i % 3];
        var keys = IntStream.of(keyLengths).sum();
        var builder = new CaseBuilder("estimated_sparse_attention", seed, dtype, i);
        // Some blocks of keys are ten times as large: scores lie far from the threshold on either side.
        var k = CaseBuilder.normal(builder.random, dtype, 1, keys, keyHeads, width);
        for (var j = 0L; j < k.elements(); j++) {
            var token = j / keyHeads / width;
            k.set(j, k.get(j) * (token / 16 % 3 == 0 ? 2 : 0.001));
        }
        builder.normal("q", dtype, 2, IntStream.of(lengths).sum(), heads, width).in("k", k)
                .normal("v", dtype, 1, keys, keyHeads, i % 2 == 0 ? width : 32)
                .in("cu_q", starts(lengths)).in("cu_k", starts(keyLengths))
                .in("tau", HostTensor.of(DType.F32, new long[] {heads},
                        IntStream.range(0, heads).mapToDouble(h -> h == 1 ? 0 : 0.02).toArray()))
                .attribute("block_q", 16 + 16 * (i % 2)).attribute("block_k", 16).attribute("sink", i % 2).attribute("local", 24)
                .attribute("est", i % 2 == 0 ? "int8" : "fp8").attribute("dense_length", i < 3 ? 0 : 70)
                .check("lse", Metric.MAX_ABS, 2e-3).check("kept", Metric.NONE, 0);
        return builder.build(dtype);
    }

    private static HostTensor starts(int[] lengths) {
        var starts = new double[lengths.length + 1];
        for (var i = 0; i < lengths.length; i++) {
            starts[i + 1] = starts[i] + lengths[i];
        }
        return HostTensor.of(DType.I32, new long[] {starts.length}, starts);
    }
}
