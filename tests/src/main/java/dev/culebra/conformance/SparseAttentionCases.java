package dev.culebra.conformance;

import java.util.Map;

/** Attention to a part of the keys. */
final class SparseAttentionCases {
    private SparseAttentionCases() {}

    static void register(Map<String, Binding> all) {}
}
