package dev.culebra;

/**
 * Attributes of the recurrences of linear attention. Immutable; start from {@link #DEFAULT}.
 *
 * @param scale of q; 0 = K^-1/2
 * @param stateLayout the order of a state's last two dimensions
 * @param checkpointEvery a state is kept after each so many tokens: 0 = none, a multiple of 64, or 1 where T is up to 8
 * @param qkL2norm the delta rules: {@code x / sqrt(sum x^2 + 1e-6)} on q and k, before the scale
 */
public record RecurrenceOptions(float scale, StateLayout stateLayout, int checkpointEvery, boolean qkL2norm) {
    /** The order of a state's last two dimensions. */
    public enum StateLayout {
        /** [V, K]. */
        VK,
        /** [K, V]. */
        KV
    }

    /** K^-1/2, [V, K], no checkpoints, no normalisation. */
    public static final RecurrenceOptions DEFAULT = new RecurrenceOptions(0, StateLayout.VK, 0, false);

    /** Another scale. */
    public RecurrenceOptions withScale(float value) {
        return new RecurrenceOptions(value, stateLayout, checkpointEvery, qkL2norm);
    }

    /** Another state layout. */
    public RecurrenceOptions withStateLayout(StateLayout value) {
        return new RecurrenceOptions(scale, value, checkpointEvery, qkL2norm);
    }

    /** Another distance of checkpoints. */
    public RecurrenceOptions withCheckpointEvery(int value) {
        return new RecurrenceOptions(scale, stateLayout, value, qkL2norm);
    }

    /** With q and k normalised or not. */
    public RecurrenceOptions withQkL2norm(boolean value) {
        return new RecurrenceOptions(scale, stateLayout, checkpointEvery, value);
    }
}
