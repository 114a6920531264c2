package dev.culebra;

/**
 * Which blocks of keys each block of queries sees: a CSR matrix with a row per (sequence, mask head, block of queries), in
 * that order. Entries are blocks of the sequence's keys, ascending, each once, then -1 where a row is padded.
 *
 * @param rowPtr i64 [B * headMap * Mb + 1]: where each row begins in {@code col}; Mb blocks of queries a sequence, enough for
 *     the longest one
 * @param col i32 [nnz]
 * @param blockQ queries a block, 16 to 128
 * @param blockK keys a block, 16 to 128
 * @param headMap mask heads: 1 for all heads alike, Hkv for one per KV head, Hq for one per query head
 */
public record BlockMask(Tensor rowPtr, Tensor col, int blockQ, int blockK, int headMap) {}
