package dev.culebra;

/**
 * Attributes of {@link Ops#estimatedSparseAttention}. Immutable; start from {@link #DEFAULT}.
 *
 * @param blockQ rows of a query block, a multiple of 16 from 16 to 128
 * @param blockK keys of a key block, likewise
 * @param sink first keys that are always seen, in whole blocks
 * @param local last visible keys of a query block that are always seen, in whole blocks
 * @param estimate what scores are estimated in
 * @param denseLength sequences of at most so many keys are dense
 * @param scale of the scores; 0 = D^-1/2
 */
public record EstimatedSparseOptions(
        int blockQ, int blockK, int sink, int local, Estimate estimate, int denseLength, float scale) {
    /** What scores are estimated in; a backend may use more bits. */
    public enum Estimate {
        /** Integers of eight bits. */
        INT8,
        /** e4m3. */
        FP8
    }

    /** Blocks of 64 x 32, a sink of 32 and 128 local keys, dense up to 1024 keys. */
    public static final EstimatedSparseOptions DEFAULT =
            new EstimatedSparseOptions(64, 32, 32, 128, Estimate.INT8, 1024, 0);

    /** Dense up to another length. */
    public EstimatedSparseOptions withDenseLength(int value) {
        return new EstimatedSparseOptions(blockQ, blockK, sink, local, estimate, value, scale);
    }

    /** Blocks of other sizes. */
    public EstimatedSparseOptions withBlocks(int queries, int keys) {
        return new EstimatedSparseOptions(queries, keys, sink, local, estimate, denseLength, scale);
    }

    /** Other keys that are always seen. */
    public EstimatedSparseOptions withCertain(int first, int last) {
        return new EstimatedSparseOptions(blockQ, blockK, first, last, estimate, denseLength, scale);
    }
}
