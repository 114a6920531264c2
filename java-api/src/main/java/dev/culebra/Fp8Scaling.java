package dev.culebra;

/** What the scales of a product of 8-bit floats belong to. */
public enum Fp8Scaling {
    /** To each of the two matrices. */
    TENSOR,
    /** To each row of both: tokens and output channels. */
    TOKEN_CHANNEL,
    /** To 128 values of a token, and to blocks of 128 x 128 weights. */
    BLOCK128
}
