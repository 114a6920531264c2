package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * The state of an mLSTM.
 *
 * @param c f32 [N, H, V, K], or [N, H, K, V] by the options' layout
 * @param n f32 [N, H, K]: the normaliser; null where the form is not normalised
 * @param m f32 [N, H]: the stabiliser; null with the sigmoid gate
 */
public record MlstmState(@Nullable Tensor c, @Nullable Tensor n, @Nullable Tensor m) {}
