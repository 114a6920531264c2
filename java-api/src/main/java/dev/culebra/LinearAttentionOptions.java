package dev.culebra;

import dev.culebra.RecurrenceOptions.StateLayout;

/**
 * Attributes of linear attention. Immutable; start from {@link #DEFAULT}.
 *
 * @param scale of q; 0 = K^-1/2
 * @param stateLayout the order of a state's last two dimensions
 * @param checkpointEvery a state is kept after each so many tokens: 0 = none, a multiple of 64, or 1 where T is up to 8
 * @param featureMap what q and k pass before they meet
 * @param normalize if outputs are divided by {@code scale q.z + eps}
 * @param eps see there
 * @param causal a token reads the state after itself; else the state after its sequence's last token
 */
public record LinearAttentionOptions(
        float scale,
        StateLayout stateLayout,
        int checkpointEvery,
        FeatureMap featureMap,
        boolean normalize,
        float eps,
        boolean causal) {
    /** What q and k pass; F is their width behind it. */
    public enum FeatureMap {
        /** As they are; F = K. */
        NONE,
        /** x + 1 for x above 0, else e^x. */
        ELU1,
        /** max(x, 0). */
        RELU,
        /** max(x, 0)^2. */
        SQUARED_RELU,
        /** Softmax over the 2K values [x, -x]; F = 2K. */
        HEDGEHOG,
        /** {@code [1, x_i K^-1/4, x_i^2 (2K)^-1/2, x_i x_j K^-1/2 for i < j]}; F = 1 + K + K (K + 1) / 2. */
        TAYLOR2;

        /** F. */
        public int width(int keyDim) {
            return switch (this) {
                case NONE, ELU1, RELU, SQUARED_RELU -> keyDim;
                case HEDGEHOG -> 2 * keyDim;
                case TAYLOR2 -> 1 + keyDim + keyDim * (keyDim + 1) / 2;
            };
        }
    }

    /** K^-1/2, [V, F], no checkpoints, no feature map, not normalised, eps 1e-10, causal. */
    public static final LinearAttentionOptions DEFAULT =
            new LinearAttentionOptions(0, StateLayout.VK, 0, FeatureMap.NONE, false, 1e-10f, true);

    /** Another scale. */
    public LinearAttentionOptions withScale(float value) {
        return new LinearAttentionOptions(value, stateLayout, checkpointEvery, featureMap, normalize, eps, causal);
    }

    /** Another state layout. */
    public LinearAttentionOptions withStateLayout(StateLayout value) {
        return new LinearAttentionOptions(scale, value, checkpointEvery, featureMap, normalize, eps, causal);
    }

    /** Another distance of checkpoints. */
    public LinearAttentionOptions withCheckpointEvery(int value) {
        return new LinearAttentionOptions(scale, stateLayout, value, featureMap, normalize, eps, causal);
    }

    /** Another feature map. */
    public LinearAttentionOptions withFeatureMap(FeatureMap value) {
        return new LinearAttentionOptions(scale, stateLayout, checkpointEvery, value, normalize, eps, causal);
    }

    /** Normalised, with this eps. */
    public LinearAttentionOptions normalized(float value) {
        return new LinearAttentionOptions(scale, stateLayout, checkpointEvery, featureMap, true, value, causal);
    }

    /** Causal or over the whole sequence. */
    public LinearAttentionOptions withCausal(boolean value) {
        return new LinearAttentionOptions(scale, stateLayout, checkpointEvery, featureMap, normalize, eps, value);
    }
}
