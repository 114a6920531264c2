package dev.culebra.tests;

import dev.culebra.conformance.Case;
import java.util.List;
import java.util.function.LongFunction;
import java.util.stream.Stream;

/** Made-up cases of every family, from one seed. */
final class RandomCases {
    private static final List<LongFunction<List<Case>>> FAMILIES = List.of(
            GlueCases::all,
            GemmCases::all,
            PackedGemmCases::all,
            LinearAttentionCases::all,
            AttentionCases::all,
            KvCacheCases::all,
            EstimatedAttentionCases::all,
            SparseAttentionCases::all,
            MoeCases::all);

    private RandomCases() {}

    static Stream<Case> all(long seed) {
        return FAMILIES.stream().flatMap(family -> family.apply(seed).stream());
    }
}
