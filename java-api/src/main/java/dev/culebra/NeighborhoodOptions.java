package dev.culebra;

import java.util.List;

/**
 * The neighborhood of a query, one entry per axis. Immutable; start from {@link #window}.
 *
 * @param window keys that a query sees on each axis
 * @param stride queries that share their window, 1 to the window; empty: 1
 * @param dilation distance of neighbours; window times dilation fits the axis; empty: 1
 * @param causal a query sees keys up to itself on this axis; empty: false
 * @param scale of the scores; 0 = D^-1/2
 */
public record NeighborhoodOptions(
        List<Integer> window, List<Integer> stride, List<Integer> dilation, List<Boolean> causal, float scale) {
    /** Copies the lists. */
    public NeighborhoodOptions {
        window = List.copyOf(window);
        stride = List.copyOf(stride);
        dilation = List.copyOf(dilation);
        causal = List.copyOf(causal);
    }

    /** A window of this many keys on each axis, centred on the query, clamped at the borders. */
    public static NeighborhoodOptions window(Integer... extents) {
        return new NeighborhoodOptions(List.of(extents), List.of(), List.of(), List.of(), 0);
    }

    /** Queries that share a window: as wide as the window itself, attention is in blocks. */
    public NeighborhoodOptions withStride(Integer... values) {
        return new NeighborhoodOptions(window, List.of(values), dilation, causal, scale);
    }

    /** Distance of neighbours. */
    public NeighborhoodOptions withDilation(Integer... values) {
        return new NeighborhoodOptions(window, stride, List.of(values), causal, scale);
    }

    /** Axes on which no query sees what comes after it. */
    public NeighborhoodOptions withCausal(Boolean... values) {
        return new NeighborhoodOptions(window, stride, dilation, List.of(values), scale);
    }

    /** Another scale. */
    public NeighborhoodOptions withScale(float value) {
        return new NeighborhoodOptions(window, stride, dilation, causal, value);
    }
}
