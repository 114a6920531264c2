package dev.culebra.conformance;

import java.util.Collections;
import java.util.Map;
import java.util.TreeMap;

/** Every operator that cases can be run on, by its name. */
public final class Bindings {
    /** All of them. */
    public static final Map<String, Binding> ALL;

    static {
        var all = new TreeMap<String, Binding>();
        GlueCases.register(all);
        GemmCases.register(all);
        PackedGemmCases.register(all);
        MoeCases.register(all);
        LinearAttentionCases.register(all);
        AttentionCases.register(all);
        KvCacheCases.register(all);
        EstimatedAttentionCases.register(all);
        SparseAttentionCases.register(all);
        ALL = Collections.unmodifiableMap(all);
    }

    private Bindings() {}
}
