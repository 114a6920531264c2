package dev.culebra;

/**
 * What an expert applies to its gate.
 *
 * @param kind which
 * @param alpha of SWIGLU_OAI
 * @param limit of SWIGLU_OAI
 */
public record ExpertActivation(Kind kind, float alpha, float limit) {
    /** The functions. */
    public enum Kind {
        /** {@code silu(gate) * up}. */
        SILU,
        /** {@code gelu(gate) * up}, erf form. */
        GELU,
        /** gate = min(gate, limit), up clamped to +-limit: {@code (up + 1) gate sigmoid(alpha gate)}. */
        SWIGLU_OAI
    }

    /** {@code silu(gate) * up}. */
    public static final ExpertActivation SILU = new ExpertActivation(Kind.SILU, 0, 0);

    /** {@code gelu(gate) * up}, erf form. */
    public static final ExpertActivation GELU = new ExpertActivation(Kind.GELU, 0, 0);

    /** The clamped form with its two parameters. */
    public static ExpertActivation swigluOai(float alpha, float limit) {
        return new ExpertActivation(Kind.SWIGLU_OAI, alpha, limit);
    }
}
