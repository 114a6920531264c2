package dev.culebra;

/**
 * Attributes of attention over a latent cache. Immutable; start from {@link #DEFAULT}.
 *
 * @param scale of the scores; 0 = 576^-1/2
 * @param valueDim channels of a value, the first of its key: 512
 * @param causal the Sq queries, the last tokens of their sequence, see keys up to their own; lists of tokens have no order
 * @param splitKvTokens keys that one block works through; 0 = tuned, larger = fixed and independent of the batch
 */
public record MlaOptions(float scale, int valueDim, boolean causal, int splitKvTokens) {
    /** Causal. */
    public static final MlaOptions DEFAULT = new MlaOptions(0, 512, true, 0);

    /** Another scale. */
    public MlaOptions withScale(float value) {
        return new MlaOptions(value, valueDim, causal, splitKvTokens);
    }

    /** Causal or not. */
    public MlaOptions withCausal(boolean value) {
        return new MlaOptions(scale, valueDim, value, splitKvTokens);
    }

    /** Another split of the keys. */
    public MlaOptions withSplitKvTokens(int value) {
        return new MlaOptions(scale, valueDim, causal, value);
    }
}
