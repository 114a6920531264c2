package dev.culebra;

/**
 * Attributes of log-probabilities. Immutable; start from {@link #DEFAULT}.
 *
 * @param ignoreIndex the target that gives 0
 * @param vocabStart the word of the first row of c
 * @param softcap s in {@code s tanh(z / s)}; 0 = none
 */
public record LogprobOptions(long ignoreIndex, long vocabStart, float softcap) {
    /** The whole vocabulary, no softcap; -100 is ignored. */
    public static final LogprobOptions DEFAULT = new LogprobOptions(-100, 0, 0);

    /** Another ignored target. */
    public LogprobOptions withIgnoreIndex(long value) {
        return new LogprobOptions(value, vocabStart, softcap);
    }

    /** A shard of the vocabulary that begins with this word. */
    public LogprobOptions withVocabStart(long value) {
        return new LogprobOptions(ignoreIndex, value, softcap);
    }

    /** Another softcap. */
    public LogprobOptions withSoftcap(float value) {
        return new LogprobOptions(ignoreIndex, vocabStart, value);
    }
}
