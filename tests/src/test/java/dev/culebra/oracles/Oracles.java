package dev.culebra.oracles;

import java.util.Map;
import java.util.TreeMap;

/** All oracles by the operator's name. */
public final class Oracles {
    public static final Map<String, Oracle> ALL = all();

    private Oracles() {}

    private static Map<String, Oracle> all() {
        var all = new TreeMap<String, Oracle>();
        GlueOracles.register(all);
        all.put("sample", new SampleOracle());
        all.put("gemm", new GemmOracle());
        all.put("w4a16_gemm", new W4a16GemmOracle());
        all.put("pack_weights", new PackWeightsOracle());
        all.put("gated_delta_rule", new GatedDeltaRuleOracle());
        all.put("causal_conv1d", new CausalConv1dOracle());
        all.put("gated_rms_norm", new GatedRmsNormOracle());
        all.put("attention", new AttentionOracle());
        all.put("paged_attention", new PagedAttentionOracle());
        all.put("paged_append", new PagedAppendOracle());
        all.put("moe_route", new MoeRouteOracle());
        all.put("moe_mlp", new MoeMlpOracle());
        return all;
    }
}
