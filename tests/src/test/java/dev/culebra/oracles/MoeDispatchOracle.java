package dev.culebra.oracles;

import java.util.Arrays;

/** Rows by the rank of their expert, each rank's in the order of slots. */
final class MoeDispatchOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var width = p.size("x", 1);
        var k = p.size("ids", 1);
        var ranks = p.attributes().integer("ranks", 1);
        var capacity = p.attributes().integer("capacity", 0);
        var x = p.values("x");
        var ids = p.ints("ids");
        var expertRank = p.ints("expert_rank");
        var expertLocal = p.ints("expert_local");
        var rows = new double[ranks * capacity * width];
        var rowIds = new int[ranks * capacity];
        var inverse = new int[ids.length];
        var counts = new int[ranks];
        Arrays.fill(rowIds, -1);
        for (var slot = 0; slot < ids.length; slot++) {
            var id = ids[slot];
            var rank = id < 0 || id >= expertRank.length ? -1 : expertRank[id];
            if (rank < 0 || rank >= ranks) {
                inverse[slot] = -1;
                continue;
            }
            var at = counts[rank]++;
            var row = rank * capacity + at;
            inverse[slot] = at < capacity ? row : -2;
            if (at < capacity) {
                rowIds[row] = expertLocal[id];
                System.arraycopy(x, slot / k * width, rows, row * width, width);
            }
        }
        p.out("rows", p.in("x").dtype(), rows, (long) ranks * capacity, width);
        p.out("row_ids", rowIds, (long) ranks * capacity);
        p.out("inverse", inverse, ids.length);
        p.out("counts", counts, ranks);
    }
}
