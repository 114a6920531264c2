package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * The weights of E experts of width I over a model of width D.
 *
 * @param kind how the matrices are stored
 * @param group INT4: elements that share a scale: -1 (all of a row), 32, 64 or 128
 * @param w13 [E, 2I, D], gate rows first, then up: half, f8e4m3, or u8 [E, 2I, D/2] with the even element in the low
 *     nibble
 * @param w13Scales F8: f32 [E, ceil(2I/128), ceil(D/128)]; INT4: half [E, 2I, G]
 * @param w13Zeros INT4: u8 [E, I, G], the even row in the low nibble; null: 8
 * @param w2 [E, D, I], stored as w13
 * @param w2Scales as w13Scales
 * @param w2Zeros as w13Zeros
 * @param b13 [E, 2I] as the activations; null: none
 * @param b2 [E, D] as the activations; null: none
 */
public record ExpertWeights(
        Kind kind,
        int group,
        Tensor w13,
        @Nullable Tensor w13Scales,
        @Nullable Tensor w13Zeros,
        Tensor w2,
        @Nullable Tensor w2Scales,
        @Nullable Tensor w2Zeros,
        @Nullable Tensor b13,
        @Nullable Tensor b2) {
    /** How the matrices are stored. */
    public enum Kind {
        /** In the activations' type. */
        HALF,
        /** In f8e4m3, with a scale for each block of 128 x 128. */
        F8,
        /** In four bits, with a scale and perhaps a zero point a group. */
        INT4
    }

    /** Matrices in the activations' type. */
    public static ExpertWeights half(Tensor w13, Tensor w2) {
        return new ExpertWeights(Kind.HALF, 0, w13, null, null, w2, null, null, null, null);
    }

    /** Matrices in f8e4m3 with scales of blocks. */
    public static ExpertWeights f8(Tensor w13, Tensor w13Scales, Tensor w2, Tensor w2Scales) {
        return new ExpertWeights(Kind.F8, 0, w13, w13Scales, null, w2, w2Scales, null, null, null);
    }

    /** Matrices in four bits; zero points are 8 where they are null. */
    public static ExpertWeights int4(
            int group,
            Tensor w13,
            Tensor w13Scales,
            @Nullable Tensor w13Zeros,
            Tensor w2,
            Tensor w2Scales,
            @Nullable Tensor w2Zeros) {
        return new ExpertWeights(Kind.INT4, group, w13, w13Scales, w13Zeros, w2, w2Scales, w2Zeros, null, null);
    }

    /** The same with biases. */
    public ExpertWeights withBiases(@Nullable Tensor newB13, @Nullable Tensor newB2) {
        return new ExpertWeights(kind, group, w13, w13Scales, w13Zeros, w2, w2Scales, w2Zeros, newB13, newB2);
    }
}
