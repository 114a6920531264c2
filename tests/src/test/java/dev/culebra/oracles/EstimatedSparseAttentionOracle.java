package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.EstimatedSparseOptions.Estimate;
import dev.culebra.conformance.HostTensor;
import java.util.stream.IntStream;

/** Causal attention to certain blocks and to those with a score above a row's threshold; the estimate is the score. */
final class EstimatedSparseAttentionOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var attributes = p.attributes();
        var blockQ = attributes.integer("block_q", 64);
        var blockK = attributes.integer("block_k", 32);
        var sink = Math.ceilDiv(attributes.integer("sink", 32), blockK);
        var local = Math.ceilDiv(attributes.integer("local", 128), blockK);
        var denseLength = attributes.integer("dense_length", 1024);
        attributes.oneOf("est", Estimate.INT8);
        var heads = p.size("q", 1);
        var width = p.size("q", 2);
        var group = heads / p.size("k", 1);
        var keyHeads = p.size("k", 1);
        var valueWidth = p.size("v", 2);
        var attention = SoftmaxAttention.of(attributes, width, true);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        var tau = p.values("tau");
        var starts = p.ints("cu_q");
        var keyStarts = p.ints("cu_k");
        var o = new double[p.size("q", 0) * heads * valueWidth];
        var lse = new double[p.size("q", 0) * heads];
        var kept = HostTensor.zeros(DType.I64, heads);
        for (var b = 0; b + 1 < starts.length; b++) {
            var queries = starts[b + 1] - starts[b];
            var firstKey = keyStarts[b];
            var keys = keyStarts[b + 1] - firstKey;
            for (var h = 0; h < heads; h++) {
                var keyHead = h / group;
                SoftmaxAttention.Rows keyRow = j -> ((firstKey + j) * keyHeads + keyHead) * width;
                SoftmaxAttention.Rows valueRow = j -> ((firstKey + j) * keyHeads + keyHead) * valueWidth;
                for (var from = 0; from < queries; from += blockQ) {
                    var to = Math.min(from + blockQ, queries);
                    var end = Math.max(Math.ceilDiv(to + keys - queries, blockK), 0);
                    var certain = new boolean[end];
                    for (var j = 0; j < end; j++) {
                        certain[j] = j < sink || j >= end - local || tau[h] <= 0 || keys <= denseLength;
                    }
                    var computed = certain.clone();
                    for (var i = from; i < to; i++) {
                        var at = ((starts[b] + i) * heads + h) * width;
                        var position = i + keys - queries;
                        var visible = listed(certain, blockK, position);
                        var sum = attention.attend(q, at, k, j -> keyRow.at(visible[j]), v, j -> valueRow.at(visible[j]),
                                visible.length, visible.length, Double.NEGATIVE_INFINITY, width, valueWidth, new double[valueWidth], 0);
                        for (var j = 0; j <= position && j < keys; j++) {
                            var score = 0.0;
                            for (var c = 0; c < width && !computed[j / blockK]; c++) {
                                score += attention.scale() * q[at + c] * k[keyRow.at(j) + c];
                            }
                            computed[j / blockK] |= score > sum + Math.log(tau[h]);
                        }
                    }
                    for (var i = from; i < to; i++) {
                        var row = (starts[b] + i) * heads + h;
                        var visible = listed(computed, blockK, i + keys - queries);
                        lse[row] = attention.attend(q, row * width, k, j -> keyRow.at(visible[j]), v, j -> valueRow.at(visible[j]),
                                visible.length, visible.length, Double.NEGATIVE_INFINITY, width, valueWidth, o, row * valueWidth);
                    }
                    var count = IntStream.range(0, end).filter(j -> computed[j]).count();
                    kept.setInteger(h, kept.integer(h) + count);
                }
            }
        }
        p.out("o", o, p.size("q", 0), heads, valueWidth);
        p.out("lse", lse, p.size("q", 0), heads);
        p.out("kept", kept);
    }

    /** The keys up to a position in these blocks. */
    private static int[] listed(boolean[] blocks, int block, int position) {
        return IntStream.rangeClosed(0, position).filter(j -> j / block < blocks.length && blocks[j / block]).toArray();
    }
}
