package dev.culebra.oracles;

import dev.culebra.GateActivation;

/** {@code rms(x) weight act(gate)}, or {@code rms(x act(gate)) weight}, a group of channels at a time. */
final class GatedRmsNormOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var width = p.size("x", -1);
        var x = p.values("x");
        var gate = p.values("gate", x.length, 0);
        var sigmoid = p.attributes().oneOf("act", GateActivation.SILU) == GateActivation.SIGMOID;
        for (var i = 0; i < x.length; i++) {
            gate[i] = !p.has("gate") ? 1 : sigmoid ? Functions.sigmoid(gate[i]) : Functions.silu(gate[i]);
        }
        var before = p.attributes().flag("norm_before_gate", true);
        var eps = p.attributes().number("eps", 1e-6);
        var weight = p.values("weight");
        var group = width / p.attributes().integer("groups", 1);
        var y = new double[x.length];
        for (var first = 0; first < x.length; first += group) {
            var sum = 0.0;
            for (var i = first; i < first + group; i++) {
                y[i] = before ? x[i] : x[i] * gate[i];
                sum += y[i] * y[i];
            }
            for (var i = first; i < first + group; i++) {
                y[i] *= weight[i % width] / Math.sqrt(sum / group + eps) * (before ? gate[i] : 1);
            }
        }
        p.out("y", y, p.shape("x"));
    }
}
