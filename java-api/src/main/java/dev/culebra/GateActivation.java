package dev.culebra;

/** What is applied to the gate of a gated norm. */
public enum GateActivation {
    /** {@code x sigmoid(x)}. */
    SILU,
    /** {@code 1 / (1 + e^-x)}. */
    SIGMOID
}
