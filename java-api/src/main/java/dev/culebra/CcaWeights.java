package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * Weights of {@link Ops#ccaQkv}, as its inputs where nothing else is said; C = (Hq + Hkv) * D, those of the queries first, and tap 1 is the
 * current token.
 *
 * @param conv1 [C, 2]
 * @param conv1Bias [C]; null: none
 * @param conv2 [C, D, 2]: out, in of the head, tap
 * @param conv2Bias [C]; null: none
 * @param temp f32 [Hkv]
 */
public record CcaWeights(
        Tensor conv1, @Nullable Tensor conv1Bias, Tensor conv2, @Nullable Tensor conv2Bias, Tensor temp) {}
