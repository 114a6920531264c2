package dev.culebra.tests;

import dev.culebra.conformance.Case;
import java.util.ArrayList;
import java.util.List;

/** Attention to a part of the keys. */
final class SparseAttentionCases {
    private SparseAttentionCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        return cases;
    }
}
