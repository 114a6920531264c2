package dev.culebra;

/** Which activations share a scale when they are quantized. */
public enum QuantizeMode {
    /** Those of a row. */
    PER_TOKEN,
    /** 128 neighbours of a row. */
    PER_BLOCK128,
    /** All; the scale is given. */
    STATIC
}
