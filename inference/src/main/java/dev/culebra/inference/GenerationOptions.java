package dev.culebra.inference;

/**
 * How long a text is continued, and how.
 *
 * @param maxTokens at most so many tokens
 * @param sampling how they are drawn
 */
public record GenerationOptions(int maxTokens, Sampling sampling) {
    /** 128 tokens, the likeliest each time. */
    public static final GenerationOptions DEFAULT = new GenerationOptions(128, Sampling.GREEDY);

    /**
     * Checks the number.
     *
     * @throws IllegalArgumentException if maxTokens is not positive
     */
    public GenerationOptions {
        if (maxTokens < 1) {
            throw new IllegalArgumentException("max_tokens is " + maxTokens + "; it must be at least 1");
        }
    }
}
