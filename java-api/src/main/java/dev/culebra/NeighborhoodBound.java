package dev.culebra;

import dev.culebra.bindings.generated.cul_neighborhood_axis;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.List;

/**
 * How much of dense attention's work a neighborhood is, in pairs of a tile of queries and a tile of keys.
 *
 * @param visited pairs that see each other
 * @param all pairs within their dilation groups
 */
public record NeighborhoodBound(double visited, double all) {
    /**
     * Counts the tiles; no device is needed.
     *
     * @param lengths tokens of each axis
     * @param options the neighborhood
     * @param queryTile queries of a tile on each axis
     * @param keyTile keys of a tile on each axis
     * @throws ArgumentException for attributes that {@link Ops#neighborhoodAttention} refuses, and tiles below 1
     * @throws IllegalArgumentException if a list is not of one entry per axis
     */
    public static NeighborhoodBound of(
            List<Integer> lengths, NeighborhoodOptions options, List<Integer> queryTile, List<Integer> keyTile) {
        var axes = lengths.size();
        for (var list : List.of(options.window(), queryTile, keyTile)) {
            if (list.size() != axes) {
                throw new IllegalArgumentException("there are " + axes + " axes, but one list has " + list.size() + " entries");
            }
        }
        for (var list : List.of(options.stride(), options.dilation(), options.causal())) {
            if (!list.isEmpty() && list.size() != axes) {
                throw new IllegalArgumentException("there are " + axes + " axes, but one list has " + list.size() + " entries");
            }
        }
        Natives.load();
        try (var arena = Arena.ofConfined()) {
            var array = cul_neighborhood_axis.allocateArray(axes, arena);
            for (var a = 0; a < axes; a++) {
                var axis = cul_neighborhood_axis.asSlice(array, a);
                cul_neighborhood_axis.length(axis, lengths.get(a));
                cul_neighborhood_axis.window(axis, options.window().get(a));
                cul_neighborhood_axis.stride(axis, options.stride().isEmpty() ? 1 : options.stride().get(a));
                cul_neighborhood_axis.dilation(axis, options.dilation().isEmpty() ? 1 : options.dilation().get(a));
                cul_neighborhood_axis.causal(axis, !options.causal().isEmpty() && options.causal().get(a) ? 1 : 0);
                cul_neighborhood_axis.query_tile(axis, queryTile.get(a));
                cul_neighborhood_axis.key_tile(axis, keyTile.get(a));
            }
            var visited = arena.allocate(ValueLayout.JAVA_DOUBLE);
            var all = arena.allocate(ValueLayout.JAVA_DOUBLE);
            Natives.check(culebra_h.cul_neighborhood_tiles(array, axes, visited, all), "neighborhood_tiles", null);
            return new NeighborhoodBound(visited.get(ValueLayout.JAVA_DOUBLE, 0), all.get(ValueLayout.JAVA_DOUBLE, 0));
        }
    }

    /** What skipping tiles can gain over visiting all of them, at most. */
    public double speedUp() {
        return all / visited;
    }
}
