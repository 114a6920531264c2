package dev.culebra;

/** What a product with packed weights does with its result. */
public enum Epilogue {
    /** Nothing. */
    NONE,
    /** {@code silu(c)}. */
    SILU,
    /** {@code silu(first half of the columns) * (second half)}. */
    SILU_MUL
}
