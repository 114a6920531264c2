package dev.culebra;

/**
 * What {@link Ops#ccaQkv} carries from call to call, as its inputs.
 *
 * @param conv [B, C, 2]: concat(x_q, x_k) of the last two tokens, the older one first
 * @param v [B, Hkv * D / 2]: x_v2 of the last token
 */
public record CcaState(Tensor conv, Tensor v) {}
