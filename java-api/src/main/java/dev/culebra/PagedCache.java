package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * Pages of keys and values.
 *
 * @param k [P, page, Hkv, D], as the operator's other tensors, or f8e4m3
 * @param v [P, page, Hkv, Dv] as k
 * @param kScale f32 [Hkv] of an f8 cache: value = stored * scale; null otherwise
 * @param vScale f32 [Hkv] of an f8 cache; null otherwise
 */
public record PagedCache(Tensor k, Tensor v, @Nullable Tensor kScale, @Nullable Tensor vScale) {
    /** A cache without scales. */
    public PagedCache(Tensor k, Tensor v) {
        this(k, v, null, null);
    }
}
