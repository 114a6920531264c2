package dev.culebra.oracles;

import dev.culebra.RouteOptions.Score;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/** Chooses experts by descending score + bias; the best groups first. */
final class MoeRouteOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var tokens = p.size("logits", 0);
        var experts = p.size("logits", 1);
        var k = p.attributes().integer("k", 0);
        var shared = p.attributes().integer("n_shared", 0);
        var groups = p.attributes().integer("n_group", 1);
        var chosenGroups = p.attributes().integer("topk_group", 1);
        var scale = p.attributes().number("scale", 1);
        var renormalize = p.attributes().flag("renormalize", false);
        var softmax = p.attributes().oneOf("score", Score.SOFTMAX) == Score.SOFTMAX;
        var logits = p.values("logits");
        var bias = p.values("bias", experts, 0);
        var weights = new double[tokens * (k + shared)];
        var ids = new int[tokens * (k + shared)];
        for (var t = 0; t < tokens; t++) {
            var scores = scores(Arrays.copyOfRange(logits, t * experts, (t + 1) * experts), softmax);
            var size = experts / groups;
            var kept = IntStream.range(0, groups).boxed()
                    .sorted(Comparator.<Integer>comparingDouble(g -> -groupScore(scores, bias, g * size, size, p.has("bias"))))
                    .limit(chosenGroups)
                    .toList();
            var order = IntStream.range(0, experts).filter(e -> kept.contains(e / size)).boxed()
                    .sorted(Comparator.<Integer>comparingDouble(e -> -(scores[e] + bias[e])))
                    .limit(k)
                    .mapToInt(e -> e)
                    .toArray();
            var sum = IntStream.of(order).mapToDouble(e -> scores[e]).sum();
            for (var j = 0; j < k + shared; j++) {
                var at = t * (k + shared) + j;
                ids[at] = j < k ? order[j] : experts + j - k;
                weights[at] = j < k ? scale * scores[order[j]] / (renormalize ? sum + 1e-20 : 1) : 1;
            }
        }
        p.out("weights", weights, tokens, k + shared);
        p.out("ids", ids, tokens, k + shared);
    }

    private static double[] scores(double[] logits, boolean softmax) {
        var scores = new double[logits.length];
        var max = IntStream.range(0, logits.length).mapToDouble(i -> logits[i]).max().orElse(0);
        var sum = 0.0;
        for (var logit : logits) {
            sum += Math.exp(logit - max);
        }
        for (var i = 0; i < scores.length; i++) {
            var score = softmax ? Math.exp(logits[i] - max) / sum : Functions.sigmoid(logits[i]);
            scores[i] = Double.isFinite(score) ? score : 0;
        }
        return scores;
    }

    private static double groupScore(double[] scores, double[] bias, int first, int size, boolean biased) {
        var sorted = IntStream.range(first, first + size).mapToDouble(e -> -(scores[e] + bias[e])).sorted().toArray();
        return biased && size > 1 ? -(sorted[0] + sorted[1]) : -sorted[0];
    }
}
