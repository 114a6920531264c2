package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * One matrix [N, K] of each of E experts.
 *
 * @param kind how they are stored
 * @param group INT4: elements that share a scale: -1 (all of a row), 32, 64 or 128
 * @param matrices [E, N, K]: half, f8e4m3, or u8 [E, N, K/2] with the even element in the low nibble
 * @param scales F8: f32 [E, ceil(N/128), ceil(K/128)]; INT4: half [E, N, G]
 * @param zeros INT4: u8 [E, N/2, G], the even row in the low nibble; null: 8
 */
public record ExpertMatrices(
        ExpertWeights.Kind kind, int group, Tensor matrices, @Nullable Tensor scales, @Nullable Tensor zeros) {
    /** Matrices in the activations' type. */
    public static ExpertMatrices half(Tensor matrices) {
        return new ExpertMatrices(ExpertWeights.Kind.HALF, 0, matrices, null, null);
    }

    /** Matrices in f8e4m3 with scales of blocks. */
    public static ExpertMatrices f8(Tensor matrices, Tensor scales) {
        return new ExpertMatrices(ExpertWeights.Kind.F8, 0, matrices, scales, null);
    }

    /** Matrices in four bits; zero points are 8 where they are null. */
    public static ExpertMatrices int4(int group, Tensor matrices, Tensor scales, @Nullable Tensor zeros) {
        return new ExpertMatrices(ExpertWeights.Kind.INT4, group, matrices, scales, zeros);
    }
}
