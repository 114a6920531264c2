package dev.culebra.inference;

/**
 * What a generator wrote.
 *
 * @param text of {@code ids}
 * @param ids the tokens written; one that ends texts is the last of them
 * @param promptIds the tokens read
 * @param stop why it ended
 * @param prefillTokensPerSecond tokens of the prompt by the time until the first new one was there
 * @param decodeTokensPerSecond the other new tokens by their time; 0 where there is but one
 */
public record Generation(
        String text,
        int[] ids,
        int[] promptIds,
        Stop stop,
        double prefillTokensPerSecond,
        double decodeTokensPerSecond) {
    /** Why a text ends. */
    public enum Stop {
        /** The model wrote a token that ends texts. */
        END_OF_TEXT,
        /** The number of tokens asked for was reached. */
        MAX_TOKENS,
        /** The model's context is full. */
        CONTEXT_FULL
    }
}
