package dev.culebra;

/**
 * Attributes of attention. Immutable; start from {@link #DEFAULT} or {@link #CAUSAL}.
 *
 * @param scale of the scores; 0 = D^-1/2
 * @param softcap c in {@code c tanh(score / c)}; 0 = none
 * @param causal position p sees keys up to p
 * @param windowLeft p sees keys from p - windowLeft on; -1 = all
 * @param windowRight p sees keys up to p + windowRight; -1 = all; causal wins over it
 * @param splitKvTokens paged: keys that one block works through; 0 = tuned, larger = fixed and independent of the batch
 */
public record AttentionOptions(
        float scale, float softcap, boolean causal, int windowLeft, int windowRight, int splitKvTokens) {
    /** Every key is seen. */
    public static final AttentionOptions DEFAULT = new AttentionOptions(0, 0, false, -1, -1, 0);

    /** Keys up to the own position are seen. */
    public static final AttentionOptions CAUSAL = DEFAULT.withCausal(true);

    /** Another scale. */
    public AttentionOptions withScale(float value) {
        return new AttentionOptions(value, softcap, causal, windowLeft, windowRight, splitKvTokens);
    }

    /** Another softcap. */
    public AttentionOptions withSoftcap(float value) {
        return new AttentionOptions(scale, value, causal, windowLeft, windowRight, splitKvTokens);
    }

    /** Causal or not. */
    public AttentionOptions withCausal(boolean value) {
        return new AttentionOptions(scale, softcap, value, windowLeft, windowRight, splitKvTokens);
    }

    /** Another window. */
    public AttentionOptions withWindow(int left, int right) {
        return new AttentionOptions(scale, softcap, causal, left, right, splitKvTokens);
    }

    /** Another split of the keys. */
    public AttentionOptions withSplitKvTokens(int value) {
        return new AttentionOptions(scale, softcap, causal, windowLeft, windowRight, value);
    }
}
