package dev.culebra.oracles;

import dev.culebra.ExpertActivation;
import dev.culebra.ExpertWeights.Kind;
import java.util.Arrays;
import java.util.Map;

/** Given logits, a {@link MoeRouteOracle} first. {@code y = sum_j w (w2 (act(gate) * up) + b2)} with {@code (gate, up) = w13 x + b13} of the expert of slot j. */
final class MoeMlpOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var tokens = p.size("x", 0);
        var width = p.size("x", 1);
        var kind = p.attributes().oneOf("experts", Kind.HALF);
        var suffix = kind == Kind.INT4 ? "_q" : "";
        var experts = p.size("w13" + suffix, 0);
        var inner = p.size("w13" + suffix, 1) / 2;
        var w13 = Experts.matrices(p, "w13", kind, 2 * inner, width);
        var w2 = Experts.matrices(p, "w2", kind, width, inner);
        var b13 = p.values("b13", experts * 2 * inner, 0);
        var b2 = p.values("b2", experts * width, 0);
        var act = p.attributes().oneOf("act", ExpertActivation.Kind.SILU);
        var alpha = p.attributes().number("alpha", 1);
        var limit = p.attributes().number("limit", 0);
        var x = p.values("x");
        if (p.has("logits")) {
            new MoeRouteOracle().solve(p);
        }
        var routing = p.has("logits") ? p.outputs() : Map.of("weights", p.in("weights"), "ids", p.in("ids"));
        var weights = routing.get("weights").doubles();
        var slots = Math.toIntExact(routing.get("ids").size(1));
        var ids = new int[weights.length];
        Arrays.setAll(ids, slot -> Math.toIntExact(routing.get("ids").integer(slot)));
        p.outputs().clear();
        var y = new double[tokens * width];
        for (var slot = 0; slot < ids.length; slot++) {
            var e = ids[slot];
            if (e < 0 || e >= experts) {
                continue;
            }
            var t = slot / slots;
            var h = new double[inner];
            for (var i = 0; i < inner; i++) {
                var gate = b13[e * 2 * inner + i] + Experts.dot(w13, (e * 2 * inner + i) * width, x, t * width, width);
                var up = b13[e * 2 * inner + inner + i] + Experts.dot(w13, (e * 2 * inner + inner + i) * width, x, t * width, width);
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
                y[t * width + i] += weights[slot] * (Experts.dot(w2, (e * width + i) * inner, h, 0, inner) + b2[e * width + i]);
            }
        }
        p.out("y", y, tokens, width);
    }
}
