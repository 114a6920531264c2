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
        all.put("w4a16_gemm", new WeightOnlyGemmOracle(4));
        all.put("w4a16_sparse24_gemm", new WeightOnlyGemmOracle(4));
        all.put("w6a16_gemm", new WeightOnlyGemmOracle(6));
        all.put("w8a16_gemm", new W8a16GemmOracle());
        all.put("w6a8_gemm", new W6a8GemmOracle());
        all.put("w4a8_gemm", new W4a8GemmOracle());
        all.put("fp8_gemm", new Fp8GemmOracle());
        all.put("quantize_activations", new QuantizeActivationsOracle());
        all.put("sparse_mlp", new SparseMlpOracle());
        all.put("linear_logprob", new LinearLogprobOracle());
        all.put("pack_weights", new PackWeightsOracle());
        for (var op : new String[] {"simple_gla", "gated_linear_attention", "delta_rule", "gated_delta_rule", "kda"}) {
            all.put(op, new RecurrenceOracle());
        }
        all.put("linear_attention", new LinearAttentionOracle());
        all.put("mlstm", new MlstmOracle());
        all.put("mixture_of_memories", new MixtureOfMemoriesOracle());
        all.put("local_linear_attention", new LocalLinearAttentionOracle());
        all.put("causal_conv1d", new CausalConv1dOracle());
        all.put("conv_fft", new ConvFftOracle());
        all.put("gated_rms_norm", new GatedRmsNormOracle());
        all.put("attention", new AttentionOracle());
        all.put("paged_attention", new PagedAttentionOracle());
        all.put("paged_append", new PagedAppendOracle());
        all.put("merge_states", new MergeStatesOracle());
        all.put("mla_attention", new MlaAttentionOracle());
        all.put("bitmap_kv_compress", new BitmapKvCompressOracle());
        all.put("bitmap_kv_attention", new BitmapKvAttentionOracle());
        all.put("kv_page_stats", new KvPageStatsOracle());
        all.put("kv_select", new KvSelectOracle());
        all.put("kv_merge", new KvMergeOracle());
        all.put("mla_index_topk", new MlaIndexTopkOracle());
        all.put("cca_qkv", new CcaQkvOracle());
        SparseAttentionOracles.register(all);
        all.put("sparse_linear_attention", new SparseLinearAttentionOracle());
        all.put("estimated_sparse_attention", new EstimatedSparseAttentionOracle());
        all.put("moe_route", new MoeRouteOracle());
        all.put("moe_align", new MoeAlignOracle());
        all.put("moe_permute", new MoePermuteOracle());
        all.put("moe_combine", new MoeCombineOracle());
        all.put("moe_dispatch", new MoeDispatchOracle());
        all.put("moe_mlp", new MoeMlpOracle());
        all.put("moe_grouped_gemm", new MoeGroupedGemmOracle());
        return all;
    }
}
