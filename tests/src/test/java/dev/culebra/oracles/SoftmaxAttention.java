package dev.culebra.oracles;

import dev.culebra.conformance.Attributes;

/** One query over keys at known places: scale, softcap, mask, softmax with the sink in the denominator. */
record SoftmaxAttention(double scale, double softcap, boolean causal, int left, int right) {
    static SoftmaxAttention of(Attributes attributes, int width, boolean causal) {
        var scale = attributes.number("scale", 0);
        return new SoftmaxAttention(scale == 0 ? 1 / Math.sqrt(width) : scale, attributes.number("softcap", 0),
                attributes.flag("causal", causal), attributes.integer("window_left", -1),
                attributes.integer("window_right", -1));
    }

    /** Without a mask of its own: who calls lists the keys that are seen. */
    static SoftmaxAttention listed(Attributes attributes, int width) {
        var scale = attributes.number("scale", 0);
        return new SoftmaxAttention(scale == 0 ? 1 / Math.sqrt(width) : scale, 0, false, -1, -1);
    }

    boolean sees(int position, int key) {
        return !(causal && key > position) && !(left >= 0 && key < position - left)
                && !(!causal && right >= 0 && key > position + right);
    }

    interface Rows {
        /** Where row {@code key} begins. */
        int at(int key);
    }

    /** Writes the output at {@code out} and returns lse. */
    double attend(double[] q, int query, double[] k, Rows keys, double[] v, Rows values, int count, int position, double sink,
            int width, int valueWidth, double[] o, int out) {
        var scores = new double[count];
        var max = Double.NEGATIVE_INFINITY;
        for (var j = 0; j < count; j++) {
            scores[j] = Double.NEGATIVE_INFINITY;
            if (sees(position, j)) {
                var sum = 0.0;
                for (var i = 0; i < width; i++) {
                    sum += q[query + i] * k[keys.at(j) + i];
                }
                scores[j] = softcap > 0 ? softcap * Math.tanh(scale * sum / softcap) : scale * sum;
                max = Math.max(max, scores[j]);
            }
        }
        if (max == Double.NEGATIVE_INFINITY) {
            return max;
        }
        var sum = 0.0;
        for (var score : scores) {
            sum += Math.exp(score - max);
        }
        var denominator = sum + Math.exp(sink - max);
        for (var j = 0; j < count; j++) {
            if (scores[j] != Double.NEGATIVE_INFINITY) {
                var weight = Math.exp(scores[j] - max) / denominator;
                for (var i = 0; i < valueWidth; i++) {
                    o[out + i] += weight * v[values.at(j) + i];
                }
            }
        }
        return max + Math.log(sum);
    }
}
