package dev.culebra;

/**
 * Attributes of local linear attention. Immutable; start from {@link #DEFAULT}.
 *
 * @param scale of the scores; 0 = K^-1/2
 * @param ridgeLambda of the regression, above 0
 * @param cgIters the most steps of conjugate gradients; an exact solution is always allowed
 * @param tol the relative residual at which they may stop
 */
public record LocalLinearAttentionOptions(float scale, float ridgeLambda, int cgIters, float tol) {
    /** K^-1/2, a ridge of 10, 32 steps, 1e-6. */
    public static final LocalLinearAttentionOptions DEFAULT = new LocalLinearAttentionOptions(0, 10, 32, 1e-6f);

    /** Another scale. */
    public LocalLinearAttentionOptions withScale(float value) {
        return new LocalLinearAttentionOptions(value, ridgeLambda, cgIters, tol);
    }

    /** Another ridge. */
    public LocalLinearAttentionOptions withRidgeLambda(float value) {
        return new LocalLinearAttentionOptions(scale, value, cgIters, tol);
    }

    /** Another end of conjugate gradients. */
    public LocalLinearAttentionOptions withSolver(int iterations, float tolerance) {
        return new LocalLinearAttentionOptions(scale, ridgeLambda, iterations, tolerance);
    }
}
