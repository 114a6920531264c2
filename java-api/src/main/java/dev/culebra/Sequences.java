package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * How tokens make sequences, and where their states lie. The two indices come together or not at all.
 *
 * @param cuSeqlens i32 [N+1]: where N packed sequences begin, from 0 on, and the last one's end, T; then B is 1; null: each row of
 *     the batch is one. Tokens behind an end before T are neither read nor written, and an error with {@code culebra.check=true}
 * @param readIndex i32 [N]: the row of the state pool that a sequence starts from; -1 skips it: its output is 0
 * @param writeIndex i32 [N]: the row that its final state goes to; -1 skips it
 */
public record Sequences(@Nullable Tensor cuSeqlens, @Nullable Tensor readIndex, @Nullable Tensor writeIndex) {
    /** Sequences packed one after the other, a state each. */
    public static Sequences packed(Tensor cuSeqlens) {
        return new Sequences(cuSeqlens, null, null);
    }

    /** Rows of a batch, with states in a pool. */
    public static Sequences pooled(Tensor readIndex, Tensor writeIndex) {
        return new Sequences(null, readIndex, writeIndex);
    }

    static @Nullable Tensor cuSeqlens(@Nullable Sequences sequences) {
        return sequences == null ? null : sequences.cuSeqlens;
    }

    static @Nullable Tensor readIndex(@Nullable Sequences sequences) {
        return sequences == null ? null : sequences.readIndex;
    }

    static @Nullable Tensor writeIndex(@Nullable Sequences sequences) {
        return sequences == null ? null : sequences.writeIndex;
    }
}
