package dev.culebra;

/**
 * Tables of a rotary embedding.
 *
 * @param cos f32 [T, R/2]
 * @param sin f32 [T, R/2]
 * @param interleaved pairs (2i, 2i+1) instead of (i, i + R/2)
 */
public record RotaryTables(Tensor cos, Tensor sin, boolean interleaved) {}
