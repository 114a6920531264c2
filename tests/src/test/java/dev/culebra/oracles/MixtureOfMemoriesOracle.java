package dev.culebra.oracles;

/** Each slot of a token takes a gated delta rule step on the memory that it is routed to; outputs are summed by weight. */
final class MixtureOfMemoriesOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var slots = p.size("ids", 2);
        var own = p.shape("q").length == 5; // projections of each slot
        var axis = own ? 1 : 0;
        var heads = p.size("q", 2 + axis);
        var keys = p.size("q", 3 + axis);
        var valueHeads = p.size("v", 2 + axis);
        var values = p.size("v", 3 + axis);
        var memories = p.size("initial_state", 1);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        if (p.attributes().flag("qk_l2norm", false)) {
            RecurrenceOracle.normalize(q, keys);
            RecurrenceOracle.normalize(k, keys);
        }
        var beta = p.values("beta");
        var tokens = p.size("q", 0) * p.size("q", 1);
        var decay = RecurrenceOracle.decays(p, own ? tokens * slots : tokens, valueHeads, keys);
        var ids = p.ints("ids");
        var weights = p.values("weights");
        var scale = RecurrenceOracle.scale(p, keys);
        var sequences = Sequences.of(p, "q");
        var states = new States(p, sequences, memories * valueHeads, values, keys);
        var o = new double[tokens * valueHeads * values];
        for (var n = 0; n < sequences.count(); n++) {
            for (var head = 0; head < valueHeads && !sequences.skipped(n); head++) {
                var s = new double[memories][];
                for (var m = 0; m < memories; m++) {
                    s[m] = states.load(n, m * valueHeads + head);
                }
                for (var t = sequences.begin()[n]; t < sequences.end()[n]; t++) {
                    for (var j = 0; j < slots; j++) {
                        var memory = ids[t * slots + j];
                        if (memory < 0) {
                            continue;
                        }
                        var row = own ? t * slots + j : t;
                        var at = row * valueHeads + head;
                        var part = new double[values];
                        RecurrenceOracle.step(s[memory], decay, at * keys, beta[at], q, k,
                                (row * heads + head / (valueHeads / heads)) * keys, v, at * values, values, scale, part, 0);
                        for (var i = 0; i < values; i++) {
                            o[(t * valueHeads + head) * values + i] += weights[t * slots + j] * part[i];
                        }
                    }
                    for (var m = 0; m < memories; m++) {
                        states.checkpoint(n, m * valueHeads + head, t + 1 - sequences.begin()[n], s[m]);
                    }
                }
                for (var m = 0; m < memories; m++) {
                    states.store(n, m * valueHeads + head, s[m]);
                }
            }
        }
        p.out("o", o, p.size("q", 0), p.size("q", 1), valueHeads, values);
        states.finish(memories, valueHeads);
    }
}
