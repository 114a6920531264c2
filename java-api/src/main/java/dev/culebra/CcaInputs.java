package dev.culebra;

/**
 * The projected tokens that {@link Ops#ccaQkv} mixes.
 *
 * @param q [B, T, Hq * D], half or f32
 * @param k [B, T, Hkv * D] as q
 * @param v1 [B, T, Hkv * D / 2] as q: the half of the values that is a token's own
 * @param v2 as v1: the half that the next token gets
 */
public record CcaInputs(Tensor q, Tensor k, Tensor v1, Tensor v2) {}
