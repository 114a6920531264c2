package dev.culebra.oracles;

import dev.culebra.LinearAttentionOptions.FeatureMap;
import java.util.Arrays;

/** {@code S += k v^T, z += k; o = scale S^T q / (scale q.z + eps)} behind a feature map. */
final class LinearAttentionOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var attributes = p.attributes();
        var heads = p.size("q", 2);
        var keys = p.size("q", 3);
        var valueHeads = p.size("v", 2);
        var values = p.size("v", 3);
        var map = attributes.oneOf("feature_map", FeatureMap.NONE);
        var width = map.width(keys);
        var q = features(map, p.values("q"), keys);
        var k = features(map, p.values("k"), keys);
        var v = p.values("v");
        var scale = RecurrenceOracle.scale(p, keys);
        var normalize = attributes.flag("normalize", false);
        var eps = attributes.number("eps", 1e-10);
        var causal = attributes.flag("causal", true);
        var sequences = Sequences.of(p, "q");
        var states = new States(p, sequences, valueHeads, values, width);
        var rows = p.has("z_state") ? p.size("z_state", 0) : sequences.count();
        var initialZ = p.values("z_state", rows * heads * width, 0);
        var lastZ = initialZ.clone();
        var o = new double[v.length];
        for (var n = 0; n < sequences.count(); n++) {
            for (var head = 0; head < valueHeads && !sequences.skipped(n); head++) {
                var keyHead = head / (valueHeads / heads);
                var s = states.load(n, head);
                var from = (sequences.read()[n] * heads + keyHead) * width;
                var z = Arrays.copyOfRange(initialZ, from, from + width);
                for (var t = sequences.begin()[n]; t < sequences.end()[n]; t++) {
                    var key = (t * heads + keyHead) * width;
                    for (var i = 0; i < width; i++) {
                        z[i] += k[key + i];
                        for (var j = 0; j < values; j++) {
                            s[i * values + j] += k[key + i] * v[(t * valueHeads + head) * values + j];
                        }
                    }
                    if (causal) {
                        read(s, z, q, key, scale, normalize, eps, o, (t * valueHeads + head) * values, values);
                    }
                    states.checkpoint(n, head, t + 1 - sequences.begin()[n], s);
                }
                for (var t = sequences.begin()[n]; t < sequences.end()[n] && !causal; t++) {
                    read(s, z, q, (t * heads + keyHead) * width, scale, normalize, eps, o, (t * valueHeads + head) * values, values);
                }
                states.store(n, head, s);
                System.arraycopy(z, 0, lastZ, (sequences.write()[n] * heads + keyHead) * width, width);
            }
        }
        p.out("o", o, p.shape("v"));
        states.finish(valueHeads);
        if (normalize) {
            p.out("final_z_state", lastZ, rows, heads, width);
        }
    }

    private static void read(double[] s, double[] z, double[] q, int key, double scale, boolean normalize, double eps, double[] o,
            int out, int values) {
        var divisor = eps;
        for (var i = 0; i < z.length; i++) {
            divisor += scale * q[key + i] * z[i];
            for (var j = 0; j < values; j++) {
                o[out + j] += scale * s[i * values + j] * q[key + i];
            }
        }
        for (var j = 0; j < values && normalize; j++) {
            o[out + j] /= divisor;
        }
    }

    private static double[] features(FeatureMap map, double[] x, int keys) {
        var width = map.width(keys);
        var all = new double[x.length / keys * width];
        for (var row = 0; row < x.length / keys; row++) {
            var mapped = features(map, Arrays.copyOfRange(x, row * keys, (row + 1) * keys));
            System.arraycopy(mapped, 0, all, row * width, width);
        }
        return all;
    }

    private static double[] features(FeatureMap map, double[] x) {
        return switch (map) {
            case NONE -> x;
            case ELU1 -> Arrays.stream(x).map(value -> value > 0 ? value + 1 : Math.exp(value)).toArray();
            case RELU -> Arrays.stream(x).map(value -> Math.max(value, 0)).toArray();
            case SQUARED_RELU -> Arrays.stream(x).map(value -> Math.pow(Math.max(value, 0), 2)).toArray();
            case HEDGEHOG -> {
                var both = new double[2 * x.length];
                for (var i = 0; i < x.length; i++) {
                    both[i] = x[i];
                    both[x.length + i] = -x[i];
                }
                var top = Arrays.stream(both).max().orElseThrow();
                var sum = Arrays.stream(both).map(value -> Math.exp(value - top)).sum();
                yield Arrays.stream(both).map(value -> Math.exp(value - top) / sum).toArray();
            }
            case TAYLOR2 -> {
                var d = x.length;
                var all = new double[map.width(d)];
                all[0] = 1;
                var at = 1 + 2 * d;
                for (var i = 0; i < d; i++) {
                    all[1 + i] = x[i] / Math.pow(d, 0.25);
                    all[1 + d + i] = x[i] * x[i] / Math.sqrt(2.0 * d);
                    for (var j = i + 1; j < d; j++) {
                        all[at++] = x[i] * x[j] / Math.sqrt(d);
                    }
                }
                yield all;
            }
        };
    }
}
