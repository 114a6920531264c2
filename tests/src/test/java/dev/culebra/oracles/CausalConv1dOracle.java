package dev.culebra.oracles;

import dev.culebra.Activation;

/** {@code y_t = act(bias + sum_j w_j x_(t-W+1+j))} per channel; the state holds the last W-1 inputs. */
final class CausalConv1dOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var channels = p.size("x", 2);
        var width = p.size("w", 1);
        var past = width - 1;
        var x = p.values("x");
        var w = p.values("w");
        var bias = p.values("bias", channels, 0);
        var act = p.attributes().oneOf("act", Activation.NONE);
        var sequences = Sequences.of(p, "x");
        var initial = p.has("state") ? p.values("state") : new double[sequences.count() * channels * past];
        var states = initial.clone();
        var y = new double[x.length];
        for (var n = 0; n < sequences.count(); n++) {
            if (sequences.skipped(n)) {
                continue;
            }
            for (var c = 0; c < channels; c++) {
                var length = sequences.end()[n] - sequences.begin()[n];
                var history = new double[past + length];
                System.arraycopy(initial, (sequences.read()[n] * channels + c) * past, history, 0, past);
                for (var t = 0; t < length; t++) {
                    var at = (sequences.begin()[n] + t) * channels + c;
                    history[past + t] = x[at];
                    var sum = bias[c];
                    for (var j = 0; j < width; j++) {
                        sum += w[c * width + j] * history[t + j];
                    }
                    y[at] = Functions.apply(act, sum);
                }
                System.arraycopy(history, length, states, (sequences.write()[n] * channels + c) * past, past);
            }
        }
        p.out("y", y, p.shape("x"));
        p.out("final_state", states, states.length / (channels * past), channels, past);
    }
}
