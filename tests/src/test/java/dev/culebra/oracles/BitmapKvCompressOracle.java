package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.conformance.HostTensor;
import java.util.Comparator;
import java.util.stream.IntStream;

/** The keep channels of largest magnitude, ties to the lower one. */
final class BitmapKvCompressOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var keep = p.attributes().integer("keep", 0);
        var width = p.size("x", 2);
        var rows = p.size("x", 0) * p.size("x", 1);
        var x = p.values("x");
        var values = new double[rows * keep];
        var bits = HostTensor.zeros(DType.I64, p.size("x", 0), p.size("x", 1), width / 64);
        for (var row = 0; row < rows; row++) {
            var first = row * width;
            var kept = IntStream.range(0, width).boxed()
                    .sorted(Comparator.<Integer>comparingDouble(c -> -Math.abs(x[first + c])).thenComparing(c -> c))
                    .limit(keep).mapToInt(c -> c).sorted().toArray();
            var words = new long[width / 64];
            for (var i = 0; i < keep; i++) {
                values[row * keep + i] = x[first + kept[i]];
                words[kept[i] / 64] |= 1L << kept[i] % 64;
            }
            for (var i = 0; i < words.length; i++) {
                bits.setInteger((long) row * words.length + i, words[i]);
            }
        }
        p.out("values", values, p.size("x", 0), p.size("x", 1), keep);
        p.out("bits", bits);
    }
}
