package dev.culebra;

/** Attention to a part of the keys. */
abstract class SparseAttentionOps extends KvCacheOps {
    SparseAttentionOps() {}
}
