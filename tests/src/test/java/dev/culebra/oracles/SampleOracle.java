package dev.culebra.oracles;

import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * Softmax of logits / temperature, cut to the top_k largest, to the smallest set that holds top_p of them, to those of at
 * least min_p times the largest; drawn by inverse transform in descending order.
 */
final class SampleOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var rows = p.size("logits", 0);
        var width = p.size("logits", 1);
        var logits = p.values("logits");
        var ids = new int[rows];
        var logprob = new double[rows];
        for (var row = 0; row < rows; row++) {
            var x = Arrays.copyOfRange(logits, row * width, (row + 1) * width);
            var order = IntStream.range(0, width).boxed()
                    .sorted(Comparator.<Integer>comparingDouble(i -> -x[i]).thenComparing(i -> i))
                    .mapToInt(i -> i)
                    .toArray();
            var temperature = p.values("temperature")[row];
            ids[row] = temperature == 0 ? order[0] : draw(p, row, x, order, temperature);
            var sum = 0.0;
            for (var value : x) {
                sum += Math.exp(value - x[order[0]]);
            }
            logprob[row] = x[ids[row]] - x[order[0]] - Math.log(sum);
        }
        p.out("ids", ids, rows);
        p.out("logprob", logprob, rows);
    }

    private static int draw(Problem p, int row, double[] x, int[] order, double temperature) {
        var width = x.length;
        var weights = new double[width];
        for (var i = 0; i < width; i++) {
            weights[i] = Math.exp((x[order[i]] - x[order[0]]) / temperature);
        }
        var topK = p.ints("top_k")[row];
        var kept = topK > 0 ? Math.min(topK, width) : width;
        var topP = p.values("top_p")[row];
        if (topP < 1) {
            var left = Arrays.stream(weights, 0, kept).sum();
            var sum = 0.0;
            var count = 0;
            while (count < kept && (count == 0 || sum < topP * left)) {
                sum += weights[count++];
            }
            kept = count;
        }
        var minP = p.values("min_p")[row];
        while (kept > 1 && weights[kept - 1] < minP) {
            kept--;
        }
        var mass = 0.0;
        for (var i = 0; i < kept; i++) {
            mass += weights[i];
        }
        var target = mass * uniform(p.in("position").integer(row), p.in("seed").integer(row));
        var sum = 0.0;
        for (var i = 0; i < kept; i++) {
            sum += weights[i];
            if (target < sum) {
                return order[i];
            }
        }
        return order[kept - 1];
    }

    /** The first two words of Philox4x32-10 with counter (position, 0) and key seed, as a fraction. */
    static double uniform(long position, long seed) {
        var c = new long[] {position & 0xFFFFFFFFL, position >>> 32, 0, 0};
        var key0 = seed & 0xFFFFFFFFL;
        var key1 = seed >>> 32;
        for (var round = 0; round < 10; round++) {
            var a = c[0] * 0xD2511F53L;
            var b = c[2] * 0xCD9E8D57L;
            c = new long[] {(b >>> 32) ^ c[1] ^ key0, b & 0xFFFFFFFFL, (a >>> 32) ^ c[3] ^ key1, a & 0xFFFFFFFFL};
            key0 = key0 + 0x9E3779B9L & 0xFFFFFFFFL;
            key1 = key1 + 0xBB67AE85L & 0xFFFFFFFFL;
        }
        return (c[0] + c[1] * 0x1p-32) * 0x1p-32;
    }
}
