package dev.culebra.oracles;

import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/** Forced pages and those of largest score; a previous choice stays where the queries are alike. */
final class KvSelectOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var topk = p.attributes().integer("topk", 0);
        var sink = p.attributes().integer("sink", 0);
        var recent = p.attributes().integer("recent", 0);
        var theta = p.attributes().number("theta", 0);
        var batch = p.size("q", 0);
        var heads = p.size("page_min", 1);
        var width = p.size("q", 2);
        var span = p.size("q", 1) / heads * width;
        var q = p.values("q");
        var min = p.values("page_min");
        var max = p.values("page_max");
        var table = p.ints("page_table");
        var counts = p.ints("page_count");
        var columns = p.size("page_table", 1);
        var idx = new int[batch * heads * topk];
        var count = new int[batch * heads];
        Arrays.fill(idx, -1);
        for (var row = 0; row < batch * heads; row++) {
            var head = row % heads;
            var query = row * span;
            var n = counts[row / heads];
            int[] chosen;
            if (p.has("q_ref") && cosine(q, p.values("q_ref"), query, span) >= theta) {
                chosen = Arrays.copyOfRange(p.ints("prev_idx"), row * topk, (row + 1) * topk);
            } else {
                var scores = new double[n];
                for (var j = 0; j < n; j++) {
                    var page = table[row / heads * columns + j];
                    scores[j] = page < 0 ? Double.NEGATIVE_INFINITY : 0;
                    for (var i = 0; page >= 0 && i < span; i++) {
                        var at = (page * heads + head) * width + i % width;
                        scores[j] += Math.max(q[query + i] * min[at], q[query + i] * max[at]);
                    }
                    if (j < sink || j >= n - recent) {
                        scores[j] = Double.POSITIVE_INFINITY;
                    }
                }
                chosen = IntStream.range(0, n).boxed()
                        .sorted(Comparator.<Integer>comparingDouble(j -> -scores[j]).thenComparing(j -> j))
                        .limit(topk).mapToInt(j -> j).sorted().toArray();
            }
            System.arraycopy(chosen, 0, idx, row * topk, chosen.length);
            count[row] = (int) Arrays.stream(chosen).filter(j -> j >= 0).count();
        }
        p.out("idx", idx, batch, heads, topk);
        p.out("count", count, batch, heads);
    }

    private static double cosine(double[] a, double[] b, int from, int count) {
        var product = 0.0;
        var own = 0.0;
        var other = 0.0;
        for (var i = from; i < from + count; i++) {
            product += a[i] * b[i];
            own += a[i] * a[i];
            other += b[i] * b[i];
        }
        return own == 0 || other == 0 ? Double.NEGATIVE_INFINITY : product / Math.sqrt(own * other);
    }
}
