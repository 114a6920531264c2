package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * The decay of a gated delta rule.
 *
 * @param mode which of the other components are read
 * @param g f32 [B, T, HV], the log decay; mode LOG
 * @param a [B, T, HV] as q; mode SOFTPLUS
 * @param aLog f32 [HV]; mode SOFTPLUS
 * @param dtBias f32 [HV]; mode SOFTPLUS
 */
public record Gate(
        Mode mode, @Nullable Tensor g, @Nullable Tensor a, @Nullable Tensor aLog, @Nullable Tensor dtBias) {
    /** How the log decay is given. */
    public enum Mode {
        /** As it is. */
        LOG,
        /** {@code -exp(aLog) softplus(a + dtBias)}. */
        SOFTPLUS
    }

    /** The log decay itself. */
    public static Gate log(Tensor g) {
        return new Gate(Mode.LOG, g, null, null, null);
    }

    /** {@code -exp(aLog) softplus(a + dtBias)}. */
    public static Gate softplus(Tensor a, Tensor aLog, Tensor dtBias) {
        return new Gate(Mode.SOFTPLUS, null, a, aLog, dtBias);
    }
}
