package dev.culebra.oracles;

import dev.culebra.MlstmOptions.InputGate;
import java.util.Arrays;

/** {@code C = f C + i k v^T, n = f n + i k; o = scale C^T q / (max(|scale n.q|, least) + eps)}, stabilised by m or not. */
final class MlstmOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var attributes = p.attributes();
        var heads = p.size("q", 2);
        var keys = p.size("q", 3);
        var values = p.size("v", 3);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        var cap = attributes.number("soft_cap", 0);
        var input = capped(p.values("i"), cap);
        var forget = capped(p.values("f"), cap);
        var scale = RecurrenceOracle.scale(p, keys);
        var exponential = attributes.oneOf("input_gate", InputGate.EXP) == InputGate.EXP;
        var normalize = attributes.flag("normalize", true);
        var eps = attributes.number("eps", 1e-6);
        var sequences = Sequences.of(p, "q");
        var states = new States(p, sequences, heads, values, keys);
        var rows = p.has("n_state") ? p.size("n_state", 0) : sequences.count();
        var initialN = p.values("n_state", rows * heads * keys, 0);
        var lastN = initialN.clone();
        var initialM = p.values("m_state", rows * heads, 0);
        var lastM = initialM.clone();
        var o = new double[v.length];
        for (var sequence = 0; sequence < sequences.count(); sequence++) {
            for (var head = 0; head < heads && !sequences.skipped(sequence); head++) {
                var c = states.load(sequence, head);
                var from = sequences.read()[sequence] * heads + head;
                var n = Arrays.copyOfRange(initialN, from * keys, (from + 1) * keys);
                var m = initialM[from];
                for (var t = sequences.begin()[sequence]; t < sequences.end()[sequence]; t++) {
                    var at = t * heads + head;
                    var logDecay = -Functions.softplus(-forget[at]);
                    var logWeight = exponential ? input[at] : -Functions.softplus(-input[at]);
                    if (exponential) {
                        var next = Math.max(logDecay + m, logWeight);
                        logDecay += m - next;
                        logWeight -= next;
                        m = next;
                    }
                    var product = 0.0;
                    for (var i = 0; i < keys; i++) {
                        n[i] = Math.exp(logDecay) * n[i] + Math.exp(logWeight) * k[at * keys + i];
                        product += scale * n[i] * q[at * keys + i];
                        for (var j = 0; j < values; j++) {
                            var cell = i * values + j;
                            c[cell] = Math.exp(logDecay) * c[cell] + Math.exp(logWeight) * k[at * keys + i] * v[at * values + j];
                            o[at * values + j] += scale * c[cell] * q[at * keys + i];
                        }
                    }
                    for (var j = 0; j < values && normalize; j++) {
                        o[at * values + j] /= Math.max(Math.abs(product), exponential ? Math.exp(-m) : 1) + eps;
                    }
                    states.checkpoint(sequence, head, t + 1 - sequences.begin()[sequence], c);
                }
                states.store(sequence, head, c);
                var to = sequences.write()[sequence] * heads + head;
                System.arraycopy(n, 0, lastN, to * keys, keys);
                lastM[to] = m;
            }
        }
        p.out("o", o, p.shape("v"));
        states.finish(heads);
        if (normalize) {
            p.out("final_n_state", lastN, rows, heads, keys);
        }
        if (exponential) {
            p.out("final_m_state", lastM, rows, heads);
        }
    }

    private static double[] capped(double[] x, double cap) {
        return cap == 0 ? x : Arrays.stream(x).map(value -> cap * Math.tanh(value / cap)).toArray();
    }
}
