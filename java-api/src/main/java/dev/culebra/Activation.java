package dev.culebra;

/** What a matrix product or a convolution applies to its result. */
public enum Activation {
    /** Nothing. */
    NONE,
    /** {@code x sigmoid(x)}. */
    SILU,
    /** {@code x/2 (1 + erf(x / sqrt 2))}. */
    GELU
}
