package dev.culebra.inference;

/**
 * How tokens are drawn. Immutable; start from {@link #GREEDY}.
 *
 * @param temperature of the softmax; 0 takes the likeliest token
 * @param topK only so many of the likeliest; 0 = all
 * @param topP only the likeliest whose sum reaches it; 1 = all
 * @param minP only those of at least so much of the likeliest's probability; 0 = all
 * @param seed of the draws: the same seed gives the same text
 */
public record Sampling(float temperature, int topK, float topP, float minP, long seed) {
    /** The likeliest token each time. */
    public static final Sampling GREEDY = new Sampling(0, 0, 1, 0, 0);

    /**
     * Checks the ranges.
     *
     * @throws IllegalArgumentException if a number is outside its range
     */
    public Sampling {
        if (!(temperature >= 0) || Float.isInfinite(temperature)) {
            throw new IllegalArgumentException("temperature is " + temperature + "; it must be 0 or more");
        }
        if (topK < 0) {
            throw new IllegalArgumentException("top_k is " + topK + "; it must be 0 (all) or more");
        }
        if (!(topP > 0 && topP <= 1)) {
            throw new IllegalArgumentException("top_p is " + topP + "; it must be above 0 and at most 1 (all)");
        }
        if (!(minP >= 0 && minP <= 1)) {
            throw new IllegalArgumentException("min_p is " + minP + "; it must be between 0 (all) and 1");
        }
    }

    /** Another temperature. */
    public Sampling withTemperature(float value) {
        return new Sampling(value, topK, topP, minP, seed);
    }

    /** Another seed. */
    public Sampling withSeed(long value) {
        return new Sampling(temperature, topK, topP, minP, value);
    }
}
