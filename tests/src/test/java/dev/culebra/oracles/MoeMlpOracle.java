package dev.culebra.oracles;

import dev.culebra.ExpertActivation;
import dev.culebra.ExpertWeights.Kind;

/** {@code y = sum_j w (w2 (act(gate) * up) + b2)} with {@code (gate, up) = w13 x + b13} of the expert of slot j. */
final class MoeMlpOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var tokens = p.size("x", 0);
        var width = p.size("x", 1);
        var kind = p.attributes().oneOf("experts", Kind.HALF);
        var suffix = kind == Kind.INT4 ? "_q" : "";
        var experts = p.size("w13" + suffix, 0);
        var inner = p.size("w13" + suffix, 1) / 2;
        var w13 = matrices(p, "w13", kind, 2 * inner, width);
        var w2 = matrices(p, "w2", kind, width, inner);
        var b13 = p.values("b13", experts * 2 * inner, 0);
        var b2 = p.values("b2", experts * width, 0);
        var act = p.attributes().oneOf("act", ExpertActivation.Kind.SILU);
        var alpha = p.attributes().number("alpha", 1);
        var limit = p.attributes().number("limit", 0);
        var x = p.values("x");
        var weights = p.values("weights");
        var ids = p.ints("ids");
        var slots = p.size("ids", 1);
        var y = new double[tokens * width];
        for (var slot = 0; slot < ids.length; slot++) {
            var e = ids[slot];
            if (e < 0 || e >= experts) {
                continue;
            }
            var t = slot / slots;
            var h = new double[inner];
            for (var i = 0; i < inner; i++) {
                var gate = b13[e * 2 * inner + i] + dot(w13, (e * 2 * inner + i) * width, x, t * width, width);
                var up = b13[e * 2 * inner + inner + i] + dot(w13, (e * 2 * inner + inner + i) * width, x, t * width, width);
                h[i] = switch (act) {
                    case SILU -> Functions.silu(gate) * up;
                    case GELU -> Functions.gelu(gate) * up;
                    case SWIGLU_OAI -> {
                        var clamped = Math.min(gate, limit);
                        yield (Math.clamp(up, -limit, limit) + 1) * clamped * Functions.sigmoid(alpha * clamped);
                    }
                };
            }
            for (var i = 0; i < width; i++) {
                y[t * width + i] += weights[slot] * (dot(w2, (e * width + i) * inner, h, 0, inner) + b2[e * width + i]);
            }
        }
        p.out("y", y, tokens, width);
    }

    private static double dot(double[] a, int i, double[] b, int j, int count) {
        var sum = 0.0;
        for (var l = 0; l < count; l++) {
            sum += a[i + l] * b[j + l];
        }
        return sum;
    }

    /** [E, rows, columns] as numbers. */
    private static double[] matrices(Problem p, String name, Kind kind, int rows, int columns) {
        if (kind == Kind.HALF) {
            return p.values(name);
        }
        if (kind == Kind.F8) {
            var w = p.values(name);
            var scales = p.values(name + "_scale");
            var down = Math.ceilDiv(rows, 128);
            var across = Math.ceilDiv(columns, 128);
            for (var i = 0; i < w.length; i++) {
                var e = i / (rows * columns);
                w[i] *= scales[(e * down + i / columns % rows / 128) * across + i % columns / 128];
            }
            return w;
        }
        var group = p.attributes().integer("group", -1);
        var groups = p.size(name + "_scales", 2);
        var q = p.ints(name + "_q");
        var scales = p.values(name + "_scales");
        var zeros = p.has(name + "_zeros") ? p.ints(name + "_zeros") : null;
        var w = new double[q.length * 2];
        for (var i = 0; i < w.length; i++) {
            var row = i / columns; // of all experts
            var g = group > 0 ? i % columns / group : 0;
            var zero = zeros == null ? 8 : zeros[row / 2 * groups + g] >> 4 * (row % 2) & 15;
            w[i] = ((q[i / 2] >> 4 * (i % 2) & 15) - zero) * scales[row * groups + g];
        }
        return w;
    }
}
