package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * Which tokens of a latent cache the queries of {@code mlaAttention} read: a sequence's pages, or a list for each query. The other
 * pair is null.
 *
 * @param pageTable i32 [B, maxP]: a sequence's pages in order; entries past the length may be -1
 * @param kvLen i32 [B]: the tokens of each sequence, the Sq new ones included
 * @param indices i32 [B, Sq, topk]: page * page size + offset; -1 anywhere
 * @param topkLen i32 [B, Sq]: entries of {@code indices} that count; null: all
 */
public record LatentTokens(
        @Nullable Tensor pageTable, @Nullable Tensor kvLen, @Nullable Tensor indices, @Nullable Tensor topkLen) {
    /** All tokens of each sequence, in order. */
    public static LatentTokens paged(Tensor pageTable, Tensor kvLen) {
        return new LatentTokens(pageTable, kvLen, null, null);
    }

    /** The tokens that an index chose for each query. */
    public static LatentTokens listed(Tensor indices, @Nullable Tensor topkLen) {
        return new LatentTokens(null, null, indices, topkLen);
    }
}
