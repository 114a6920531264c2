package dev.culebra.oracles;

import dev.culebra.DType;
import java.util.ArrayList;
import java.util.Arrays;

/** Each local expert's slots in ascending order, padded to whole blocks with the number of slots. */
final class MoeAlignOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var experts = p.attributes().integer("experts", 0);
        var local = p.attributes().integer("local_experts", experts);
        var block = p.attributes().integer("block", 0);
        var ids = p.ints("ids");
        var map = p.has("expert_map") ? p.ints("expert_map") : null;
        var capacity = Math.ceilDiv(ids.length + local * (block - 1), block) * block;
        var sorted = new ArrayList<Integer>();
        var blocks = new ArrayList<Integer>();
        var offsets = new double[local + 1];
        var inverse = new int[ids.length];
        Arrays.fill(inverse, -1);
        var placed = 0;
        for (var expert = 0; expert < local; expert++) {
            offsets[expert] = placed;
            for (var slot = 0; slot < ids.length; slot++) {
                var id = ids[slot];
                if (id >= 0 && id < experts && (map == null ? id : map[id]) == expert) {
                    sorted.add(slot);
                    inverse[slot] = placed++;
                }
            }
            while (sorted.size() % block > 0) {
                sorted.add(ids.length);
            }
            while (blocks.size() < sorted.size() / block) {
                blocks.add(expert);
            }
        }
        offsets[local] = placed;
        p.out("n_padded", new int[] {sorted.size()}, 1);
        while (sorted.size() < capacity) {
            sorted.add(ids.length);
        }
        while (blocks.size() < capacity / block) {
            blocks.add(-1);
        }
        p.out("sorted", sorted.stream().mapToInt(i -> i).toArray(), capacity);
        p.out("block_expert", blocks.stream().mapToInt(i -> i).toArray(), capacity / block);
        p.out("offsets", DType.I64, offsets, local + 1);
        p.out("inverse", inverse, ids.length);
    }
}
