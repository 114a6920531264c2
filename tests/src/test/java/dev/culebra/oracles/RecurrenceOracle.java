package dev.culebra.oracles;

import dev.culebra.Gate;
import org.jspecify.annotations.Nullable;

/** {@code S = diag(e^g) S}, then {@code S += k v^T} or {@code S += k (beta (v - S^T k))^T}; {@code o = scale S^T q}: token by token. */
final class RecurrenceOracle implements Oracle {
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
        var beta = p.has("beta") ? p.values("beta") : null;
        var decay = decays(p, p.size("q", 0) * p.size("q", 1), valueHeads, keys);
        var scale = scale(p, keys);
        var sequences = Sequences.of(p, "q");
        var states = new States(p, sequences, valueHeads, values, keys);
        var o = new double[v.length];
        for (var n = 0; n < sequences.count(); n++) {
            for (var head = 0; head < valueHeads && !sequences.skipped(n); head++) {
                var keyHead = head / (valueHeads / heads);
                var s = states.load(n, head);
                for (var t = sequences.begin()[n]; t < sequences.end()[n]; t++) {
                    var at = t * valueHeads + head;
                    step(s, decay, at * keys, beta == null ? null : beta[at], q, k, (t * heads + keyHead) * keys, v, at * values,
                            values, scale, o, at * values);
                    states.checkpoint(n, head, t + 1 - sequences.begin()[n], s);
                }
                states.store(n, head, s);
            }
        }
        p.out("o", o, p.shape("v"));
        states.finish(valueHeads);
    }

    static double scale(Problem p, int keys) {
        var scale = p.attributes().number("scale", 0);
        return scale == 0 ? 1 / Math.sqrt(keys) : scale;
    }

    /**
     * One token on the state {@code s} [K, V]; adds to o. The decays of the K channels are at {@code gate}, q and k at
     * {@code key}, v at {@code value}, the result goes to {@code out}.
     */
    static void step(double[] s, double[] decay, int gate, @Nullable Double beta, double[] q, double[] k, int key, double[] v,
            int value, int values, double scale, double[] o, int out) {
        var keys = s.length / values;
        for (var j = 0; j < values; j++) {
            var seen = 0.0;
            for (var i = 0; i < keys; i++) {
                s[i * values + j] *= decay[gate + i];
                seen += s[i * values + j] * k[key + i];
            }
            var added = beta == null ? v[value + j] : beta * (v[value + j] - seen);
            for (var i = 0; i < keys; i++) {
                s[i * values + j] += k[key + i] * added;
                o[out + j] += scale * s[i * values + j] * q[key + i];
            }
        }
    }

    /** e^g for each of {@code tokens}, head and channel. */
    static double[] decays(Problem p, int tokens, int valueHeads, int keys) {
        var mode = p.attributes().oneOf("gate_mode", Gate.Mode.LOG);
        var raw = mode != Gate.Mode.LOG;
        var gate = p.has("g_head") ? p.values("g_head") : raw ? p.values("a") : p.values("g", tokens * valueHeads, 0);
        var aLog = raw ? p.values("A_log") : null;
        var bias = raw ? p.values("dt_bias") : null;
        var lowerBound = p.attributes().number("lower_bound", -5);
        var all = new double[tokens * valueHeads * keys];
        for (var at = 0; at < all.length; at++) {
            var head = at / keys % valueHeads;
            var channel = head * keys + at % keys;
            var g = gate.length == valueHeads && p.has("g_head") ? gate[head]
                    : gate.length == all.length ? gate[at] : gate[at / keys];
            if (raw) {
                var slope = Math.exp(aLog[head]);
                var x = g + bias[bias.length == valueHeads ? head : channel];
                g = mode == Gate.Mode.SOFTPLUS ? -slope * Functions.softplus(x) : lowerBound * Functions.sigmoid(slope * x);
            }
            all[at] = Math.exp(Math.max(g, -30));
        }
        return all;
    }

    static void normalize(double[] x, int width) {
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
