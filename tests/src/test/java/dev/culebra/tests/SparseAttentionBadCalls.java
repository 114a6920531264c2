package dev.culebra.tests;

/** Bad calls of attention to a part of the keys. */
final class SparseAttentionBadCalls {
    private SparseAttentionBadCalls() {}

    static void add(BadCalls table) {}
}
