package dev.culebra.oracles;

import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/** Runs of similar neighbours, each merged around its token of largest mass. */
final class KvMergeOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var eps = p.attributes().real("eps", 0.75);
        var protect = p.attributes().real("protect", 0);
        var heads = p.size("k", 1);
        var k = p.values("k");
        var v = p.values("v");
        var width = p.size("k", 2);
        var valueWidth = p.size("v", 2);
        var mass = p.values("attn_mass");
        var starts = p.ints("cu_seqlens");
        var mergedK = new double[k.length];
        var mergedV = new double[v.length];
        var origin = new int[mass.length];
        var count = new int[(starts.length - 1) * heads];
        Arrays.fill(origin, -1);
        for (var b = 0; b + 1 < starts.length; b++) {
            var begin = starts[b];
            var length = starts[b + 1] - begin;
            for (var head = 0; head < heads; head++) {
                var h = head;
                var alone = new boolean[length];
                IntStream.range(0, length).boxed()
                        .sorted(Comparator.<Integer>comparingDouble(i -> -mass[(begin + i) * heads + h]).thenComparing(i -> i))
                        .limit((long) Math.floor(protect * length)).forEach(i -> alone[i] = true);
                var runs = 0;
                for (int from = 0, to; from < length; from = to) {
                    to = from + 1;
                    while (to < length && !alone[to] && !alone[to - 1]
                            && cosine(k, row(begin + to, heads, h, width), row(begin + to - 1, heads, h, width), width) > eps) {
                        to++;
                    }
                    var pivot = from;
                    for (var i = from; i < to; i++) {
                        pivot = mass[(begin + i) * heads + h] > mass[(begin + pivot) * heads + h] ? i : pivot;
                    }
                    var at = begin + runs++;
                    origin[at * heads + h] = pivot;
                    merge(k, v, begin, from, to, pivot, heads, h, width, valueWidth, mergedK, mergedV, at);
                }
                count[b * heads + h] = runs;
            }
        }
        p.out("k", mergedK, p.shape("k"));
        p.out("v", mergedV, p.shape("v"));
        p.out("origin", origin, p.size("k", 0), heads);
        p.out("count", count, starts.length - 1, heads);
    }

    private static int row(int token, int heads, int head, int width) {
        return (token * heads + head) * width;
    }

    private static double cosine(double[] x, int a, int b, int width) {
        double product = 0;
        double first = 0;
        double second = 0;
        for (var i = 0; i < width; i++) {
            product += x[a + i] * x[b + i];
            first += x[a + i] * x[a + i];
            second += x[b + i] * x[b + i];
        }
        return first == 0 || second == 0 ? 0 : product / Math.sqrt(first * second);
    }

    private static void merge(double[] k, double[] v, int begin, int from, int to, int pivot, int heads, int head, int width,
            int valueWidth, double[] mergedK, double[] mergedV, int at) {
        var distances = new double[to - from];
        var mean = 0.0;
        for (var i = from; i < to; i++) {
            for (var c = 0; c < width; c++) {
                var difference = k[row(begin + i, heads, head, width) + c] - k[row(begin + pivot, heads, head, width) + c];
                distances[i - from] += difference * difference;
            }
            mean += distances[i - from] / (to - from);
        }
        var spread = mean;
        var weights = Arrays.stream(distances).map(x -> spread == 0 ? 1 : Math.exp(-x / (2 * spread))).toArray();
        var total = Arrays.stream(weights).sum();
        for (var i = from; i < to; i++) {
            for (var c = 0; c < width; c++) {
                mergedK[row(at, heads, head, width) + c] += weights[i - from] / total * k[row(begin + i, heads, head, width) + c];
            }
            for (var c = 0; c < valueWidth; c++) {
                mergedV[row(at, heads, head, valueWidth) + c] +=
                        weights[i - from] / total * v[row(begin + i, heads, head, valueWidth) + c];
            }
        }
    }
}
