package dev.culebra;

/**
 * Pages of keys and values that keep some channels of each row, as {@link Ops#bitmapKvCompress} writes them.
 *
 * @param kValues [P, page, Hkv, keep], as the operator's other tensors
 * @param kBits i64 [P, page, Hkv, D / 64]
 * @param vValues as kValues; it may keep another number of channels
 * @param vBits as kBits
 */
public record BitmapCache(Tensor kValues, Tensor kBits, Tensor vValues, Tensor vBits) {}
