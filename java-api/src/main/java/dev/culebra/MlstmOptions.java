package dev.culebra;

import dev.culebra.RecurrenceOptions.StateLayout;

/**
 * Attributes of an mLSTM. Immutable; start from {@link #DEFAULT}.
 *
 * @param scale of q; 0 = K^-1/2
 * @param stateLayout the order of C's last two dimensions
 * @param checkpointEvery C is kept after each so many tokens: 0 = none, a multiple of 64, or 1 where T is up to 8
 * @param inputGate which activation the input gate has
 * @param normalize if outputs are divided by the normaliser; the exponential gate needs it
 * @param eps added to the divisor
 * @param softCap c in {@code c tanh(x / c)} on both gates before their activation; 0 = none
 */
public record MlstmOptions(
        float scale,
        StateLayout stateLayout,
        int checkpointEvery,
        InputGate inputGate,
        boolean normalize,
        float eps,
        float softCap) {
    /** The input gate's activation. */
    public enum InputGate {
        /** {@code e^i}, stabilised. */
        EXP,
        /** {@code sigmoid(i)}. */
        SIGMOID
    }

    /** K^-1/2, [V, K], no checkpoints, exponential gate, normalised with 1e-6, no cap. */
    public static final MlstmOptions DEFAULT = new MlstmOptions(0, StateLayout.VK, 0, InputGate.EXP, true, 1e-6f, 0);

    /** Another scale. */
    public MlstmOptions withScale(float value) {
        return new MlstmOptions(value, stateLayout, checkpointEvery, inputGate, normalize, eps, softCap);
    }

    /** Another state layout. */
    public MlstmOptions withStateLayout(StateLayout value) {
        return new MlstmOptions(scale, value, checkpointEvery, inputGate, normalize, eps, softCap);
    }

    /** Another distance of checkpoints. */
    public MlstmOptions withCheckpointEvery(int value) {
        return new MlstmOptions(scale, stateLayout, value, inputGate, normalize, eps, softCap);
    }

    /** Another input gate, normalised or not. */
    public MlstmOptions withInputGate(InputGate gate, boolean normalized) {
        return new MlstmOptions(scale, stateLayout, checkpointEvery, gate, normalized, eps, softCap);
    }

    /** Another eps. */
    public MlstmOptions withEps(float value) {
        return new MlstmOptions(scale, stateLayout, checkpointEvery, inputGate, normalize, value, softCap);
    }

    /** Another cap. */
    public MlstmOptions withSoftCap(float value) {
        return new MlstmOptions(scale, stateLayout, checkpointEvery, inputGate, normalize, eps, value);
    }
}
