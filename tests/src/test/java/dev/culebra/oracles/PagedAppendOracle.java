package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.conformance.HostTensor;

/** Keys, turned where there are tables, and values at slot = page * page size + offset; -1 skips. */
final class PagedAppendOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var k = p.values("k");
        var interleaved = p.attributes().flag("interleaved", false);
        if (p.has("cos")) {
            var pairs = p.size("cos", 1);
            var width = p.size("k", 2);
            for (var head = 0; head < k.length / width; head++) {
                GlueOracles.rotate(k, head * width, pairs, p.values("cos"), p.values("sin"),
                        head / p.size("k", 1) * pairs, interleaved);
            }
        }
        write(p, "k_cache", "k_scale", k, p.size("k", 2));
        write(p, "v_cache", "v_scale", p.values("v"), p.size("v", 2));
    }

    private static void write(Problem p, String name, String scale, double[] rows, int width) {
        var heads = p.size(name, 2);
        var cache = p.values(name);
        var factors = p.values(scale, heads, 1);
        var slots = p.ints("slot");
        var rounded = HostTensor.zeros(p.in(name).dtype(), 1);
        for (var i = 0; i < rows.length; i++) {
            var token = i / (heads * width);
            if (slots[token] >= 0) {
                var value = rows[i] / factors[i / width % heads];
                if (p.in(name).dtype() == DType.F8E4M3) {
                    rounded.set(0, value);
                    value = rounded.get(0);
                }
                cache[slots[token] * heads * width + i % (heads * width)] = value;
            }
        }
        p.out(name, cache, p.shape(name));
    }
}
