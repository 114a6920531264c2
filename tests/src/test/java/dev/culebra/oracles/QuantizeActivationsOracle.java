package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.QuantizeMode;

/**
 * {@code scale = max(amax / qmax, 1e-12)}, {@code q = x / scale} rounded to nearest even and saturated. Its divisions are
 * those of f32, so that its integers are those of every backend, bit for bit.
 */
final class QuantizeActivationsOracle implements Oracle {
    private static final int BLOCK = 128;

    @Override
    public void solve(Problem p) {
        var m = p.size("x", 0);
        var k = p.size("x", 1);
        var x = p.values("x");
        var mode = p.attributes().oneOf("mode", QuantizeMode.PER_TOKEN);
        var integers = p.attributes().oneOf("dtype", DType.I8) == DType.I8;
        var largest = integers ? 127f : 448f;
        var smallest = integers && mode == QuantizeMode.STATIC ? -128f : -largest;
        var width = mode == QuantizeMode.PER_BLOCK128 ? BLOCK : k;
        var blocks = mode == QuantizeMode.PER_BLOCK128 ? Math.ceilDiv(k, BLOCK) : 1;
        var scales = new double[m * blocks];
        var q = new double[m * k];
        for (var row = 0; row < m; row++) {
            for (var block = 0; block < blocks; block++) {
                var scale = (float) p.values("scale", 1, 0)[0];
                if (mode != QuantizeMode.STATIC) {
                    var amax = 0f;
                    for (var i = block * width; i < Math.min(k, (block + 1) * width); i++) {
                        amax = Math.max(amax, Math.abs((float) x[row * k + i]));
                    }
                    scale = Math.max(amax / largest, 1e-12f);
                    scales[row * blocks + block] = scale;
                }
                for (var i = block * width; i < Math.min(k, (block + 1) * width); i++) {
                    var quotient = Math.clamp((float) x[row * k + i] / scale, smallest, largest);
                    q[row * k + i] = integers ? Math.rint(quotient) : quotient;
                }
            }
        }
        p.out("q", integers ? DType.I8 : DType.F8E4M3, q, m, k);
        if (mode != QuantizeMode.STATIC) {
            p.out("scales", scales, m, blocks);
        }
    }
}
