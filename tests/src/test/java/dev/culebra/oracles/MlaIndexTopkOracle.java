package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.KeyIndex;
import dev.culebra.conformance.HostTensor;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/** All scores of a query, sorted. */
final class MlaIndexTopkOracle implements Oracle {
    private static final int HEADS = 64;
    private static final int WIDTH = 128;
    private static final int ROW = WIDTH + 4;

    @Override
    public void solve(Problem p) {
        var topk = p.attributes().integer("topk", 2048);
        var slots = p.attributes().oneOf("index", KeyIndex.POSITION) == KeyIndex.SLOT;
        var q = p.values("q");
        var weights = p.values("weights");
        var keys = keys(p.in("keys"));
        var starts = p.ints("cu_q");
        var table = p.ints("page_table");
        var columns = p.size("page_table", 1);
        var page = p.size("keys", 1);
        var lengths = p.ints("kv_len");
        var idx = new int[p.size("q", 0) * topk];
        Arrays.fill(idx, -1);
        for (var b = 0; b + 1 < starts.length; b++) {
            for (var t = starts[b]; t < starts[b + 1]; t++) {
                var end = Math.max(lengths[b] - (starts[b + 1] - t) + 1, 0);
                var places = new int[end];
                var scores = new double[end];
                for (var s = 0; s < end; s++) {
                    places[s] = table[b * columns + s / page] * page + s % page;
                    for (var h = 0; h < HEADS; h++) {
                        var sum = 0.0;
                        for (var i = 0; i < WIDTH; i++) {
                            sum += q[(t * HEADS + h) * WIDTH + i] * keys[places[s] * WIDTH + i];
                        }
                        scores[s] += weights[t * HEADS + h] * Math.max(sum, 0);
                    }
                }
                var chosen = IntStream.range(0, end).boxed()
                        .sorted(Comparator.<Integer>comparingDouble(s -> -scores[s]).thenComparing(s -> s))
                        .limit(topk).mapToInt(s -> s).sorted().map(s -> slots ? places[s] : s).toArray();
                System.arraycopy(chosen, 0, idx, t * topk, chosen.length);
            }
        }
        p.out("idx", idx, p.size("q", 0), topk);
    }

    /** The scaled elements of all rows. */
    private static double[] keys(HostTensor rows) {
        var count = Math.toIntExact(rows.elements() / ROW);
        var elements = HostTensor.zeros(DType.F8E4M3, WIDTH);
        var keys = new double[count * WIDTH];
        for (var row = 0; row < count; row++) {
            elements.data().copyFrom(rows.data().asSlice((long) row * ROW, WIDTH));
            var scale = rows.data().get(ValueLayout.JAVA_FLOAT_UNALIGNED, (long) row * ROW + WIDTH);
            for (var i = 0; i < WIDTH; i++) {
                keys[row * WIDTH + i] = scale * elements.get(i);
            }
        }
        return keys;
    }
}
