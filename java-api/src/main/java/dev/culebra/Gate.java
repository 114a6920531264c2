package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * The decay of a recurrence, or what it is computed from. Where an operator decays each key channel apart, g and a have
 * a last dimension K more.
 *
 * @param mode which of the other components are read
 * @param g f32 [B, T, HV] or [B, T, HV, K], the log decay; mode LOG
 * @param gHead f32 [HV], the log decay of a head for every token, instead of g; mode LOG, simpleGla alone
 * @param a [B, T, HV] or [B, T, HV, K] as q; the other modes
 * @param aLog f32 [HV]; the other modes
 * @param dtBias f32 [HV] or [HV, K]; the other modes
 * @param lowerBound of the log decay, in [-5, 0); mode LOWER_BOUND
 */
public record Gate(
        Mode mode,
        @Nullable Tensor g,
        @Nullable Tensor gHead,
        @Nullable Tensor a,
        @Nullable Tensor aLog,
        @Nullable Tensor dtBias,
        float lowerBound) {
    /** How the log decay is given. */
    public enum Mode {
        /** As it is. */
        LOG,
        /** {@code -exp(aLog) softplus(a + dtBias)}. */
        SOFTPLUS,
        /** {@code lowerBound sigmoid(exp(aLog) (a + dtBias))}; kda alone. */
        LOWER_BOUND
    }

    /** The log decay itself. */
    public static Gate log(Tensor g) {
        return new Gate(Mode.LOG, g, null, null, null, null, 0);
    }

    /** A log decay per head, the same for every token. */
    public static Gate head(Tensor gHead) {
        return new Gate(Mode.LOG, null, gHead, null, null, null, 0);
    }

    /** {@code -exp(aLog) softplus(a + dtBias)}. */
    public static Gate softplus(Tensor a, Tensor aLog, Tensor dtBias) {
        return new Gate(Mode.SOFTPLUS, null, null, a, aLog, dtBias, 0);
    }

    /** {@code lowerBound sigmoid(exp(aLog) (a + dtBias))}. */
    public static Gate lowerBound(Tensor a, Tensor aLog, Tensor dtBias, float lowerBound) {
        return new Gate(Mode.LOWER_BOUND, null, null, a, aLog, dtBias, lowerBound);
    }
}
