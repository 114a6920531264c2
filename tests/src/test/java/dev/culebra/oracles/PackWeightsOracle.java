package dev.culebra.oracles;

import dev.culebra.DType;
import java.util.Arrays;

/** Packing and unpacking: the checkpoint as plain unsigned integers. */
final class PackWeightsOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var c = Checkpoint.decode(p, p.attributes().integer("bits", 4));
        p.outputs().put("q", Checkpoint.bytes(c.q(), c.n(), c.k()));
        p.outputs().put("zeros", Checkpoint.bytes(c.zeros(), c.n(), c.groups()));
        p.out("scales", c.scales().doubles(), c.n(), c.groups());
        if (p.has("g_idx") || p.has("weight_g_idx")) {
            p.out("g_idx", DType.I32, Arrays.stream(c.group()).asDoubleStream().toArray(), c.k());
        }
    }
}
