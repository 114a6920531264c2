package dev.culebra.oracles;

import dev.culebra.Gate;
import dev.culebra.RecurrenceOptions.StateLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** {@code S = e^g S; S += k (beta (v - S^T k))^T; o = scale S^T q}, token by token. */
final class GatedDeltaRuleOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var heads = p.size("q", 2);
        var keys = p.size("q", 3);
        var valueHeads = p.size("v", 2);
        var values = p.size("v", 3);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        if (p.attributes().flag("qk_l2norm", false)) {
            normalize(q, keys);
            normalize(k, keys);
        }
        var beta = p.values("beta");
        var gates = gates(p, valueHeads);
        var scale = p.attributes().number("scale", 0);
        var factor = scale == 0 ? 1 / Math.sqrt(keys) : scale;
        var transposed = p.attributes().oneOf("state_layout", StateLayout.VK) == StateLayout.VK;
        var every = p.attributes().integer("checkpoint_every", 0);
        var sequences = Sequences.of(p, "q");
        var size = keys * values;
        var initial = p.has("initial_state") ? p.values("initial_state") : new double[sequences.count() * valueHeads * size];
        var states = initial.clone();
        var checkpoints = new ArrayList<double[]>();
        var o = new double[v.length];
        for (var n = 0; n < sequences.count(); n++) {
            if (sequences.skipped(n)) {
                continue;
            }
            var length = sequences.end()[n] - sequences.begin()[n];
            var kept = new double[every > 0 ? length / every : 0][valueHeads * size];
            for (var head = 0; head < valueHeads; head++) {
                var keyHead = head / (valueHeads / heads);
                var s = new double[size]; // [K, V]
                move(initial, (sequences.read()[n] * valueHeads + head) * size, s, keys, values, transposed, true);
                for (var t = sequences.begin()[n]; t < sequences.end()[n]; t++) {
                    var at = t * valueHeads + head;
                    step(s, Math.exp(Math.max(gates[at], -30)), beta[at], factor, q, k, (t * heads + keyHead) * keys,
                            v, o, at * values, keys, values);
                    var done = t + 1 - sequences.begin()[n];
                    if (every > 0 && done % every == 0) {
                        move(kept[done / every - 1], head * size, s, keys, values, transposed, false);
                    }
                }
                move(states, (sequences.write()[n] * valueHeads + head) * size, s, keys, values, transposed, false);
            }
            checkpoints.addAll(List.of(kept));
        }
        p.out("o", o, p.shape("v"));
        var rows = (long) (transposed ? values : keys);
        var columns = (long) (transposed ? keys : values);
        p.out("final_state", states, states.length / (valueHeads * size), valueHeads, rows, columns);
        if (every > 0) {
            p.out("checkpoints", checkpoints.stream().flatMapToDouble(Arrays::stream).toArray(),
                    checkpoints.size(), valueHeads, rows, columns);
        }
    }

    private static void step(double[] s, double decay, double beta, double scale, double[] q, double[] k, int key,
            double[] v, double[] o, int value, int keys, int values) {
        for (var j = 0; j < values; j++) {
            var seen = 0.0;
            for (var i = 0; i < keys; i++) {
                s[i * values + j] *= decay;
                seen += s[i * values + j] * k[key + i];
            }
            var delta = beta * (v[value + j] - seen);
            var sum = 0.0;
            for (var i = 0; i < keys; i++) {
                s[i * values + j] += k[key + i] * delta;
                sum += s[i * values + j] * q[key + i];
            }
            o[value + j] = scale * sum;
        }
    }

    /** Between the stored state at {@code base}, [V, K] where transposed, and {@code s}. */
    private static void move(double[] stored, int base, double[] s, int keys, int values, boolean transposed, boolean load) {
        for (var i = 0; i < keys; i++) {
            for (var j = 0; j < values; j++) {
                var at = base + (transposed ? j * keys + i : i * values + j);
                if (load) {
                    s[i * values + j] = stored[at];
                } else {
                    stored[at] = s[i * values + j];
                }
            }
        }
    }

    private static double[] gates(Problem p, int valueHeads) {
        if (p.attributes().oneOf("gate_mode", Gate.Mode.LOG) == Gate.Mode.LOG) {
            return p.values("g");
        }
        var a = p.values("a");
        var aLog = p.values("A_log");
        var bias = p.values("dt_bias");
        for (var i = 0; i < a.length; i++) {
            var head = i % valueHeads;
            a[i] = -Math.exp(aLog[head]) * Functions.softplus(a[i] + bias[head]);
        }
        return a;
    }

    private static void normalize(double[] x, int width) {
        for (var row = 0; row < x.length; row += width) {
            var sum = 1e-6;
            for (var i = 0; i < width; i++) {
                sum += x[row + i] * x[row + i];
            }
            for (var i = 0; i < width; i++) {
                x[row + i] /= Math.sqrt(sum);
            }
        }
    }
}
