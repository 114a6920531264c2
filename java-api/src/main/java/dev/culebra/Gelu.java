package dev.culebra;

/** The forms of {@code gelu}. */
public enum Gelu {
    /** {@code x/2 (1 + erf(x / sqrt 2))}. */
    ERF,
    /** {@code x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))}. */
    TANH
}
