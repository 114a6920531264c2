package dev.culebra.conformance;

import dev.culebra.AttentionOptions;
import dev.culebra.DType;
import dev.culebra.LatentTokens;
import dev.culebra.MlaOptions;
import dev.culebra.Ops;
import dev.culebra.PagedCache;
import dev.culebra.RotaryTables;
import java.util.Map;

/** Softmax attention. */
final class AttentionCases {
    private AttentionCases() {}

    static void register(Map<String, Binding> all) {
        all.put("attention", AttentionCases::attention);
        all.put("paged_attention", AttentionCases::pagedAttention);
        all.put("paged_append", AttentionCases::pagedAppend);
        all.put("merge_states", AttentionCases::mergeStates);
        all.put("mla_attention", AttentionCases::mlaAttention);
    }

    private static AttentionOptions options(Call call, boolean causal) {
        var attributes = call.attributes();
        return new AttentionOptions(
                attributes.number("scale", 0),
                attributes.number("softcap", 0),
                attributes.flag("causal", causal),
                attributes.integer("window_left", -1),
                attributes.integer("window_right", -1),
                attributes.integer("split_kv_tokens", 0));
    }

    private static void attention(Call call) {
        var options = options(call, false);
        var tokens = call.size("q", 0);
        var heads = call.size("q", 1);
        Ops.attention(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("cu_q"), call.in("cu_k"),
                call.in("sink"), call.out("o", call.dtype("q"), tokens, heads, call.size("v", 2)),
                call.optionalOut("lse", DType.F32, tokens, heads), options);
    }

    private static void pagedAttention(Call call) {
        var options = options(call, true);
        var cache = new PagedCache(call.in("k_cache"), call.in("v_cache"), call.in("k_scale"), call.in("v_scale"));
        Ops.pagedAttention(call.stream(), call.in("q"), cache, call.in("page_table"), call.in("kv_len"), call.in("sink"),
                call.out("o", call.dtype("q"), call.shape("q")),
                call.optionalOut("lse", DType.F32, call.size("q", 0), call.size("q", 1), call.size("q", 2)), options);
    }

    private static void pagedAppend(Call call) {
        var interleaved = call.attributes().flag("interleaved", false);
        var rotary = call.has("cos") || call.has("sin") ? new RotaryTables(call.in("cos"), call.in("sin"), interleaved) : null;
        var cache = new PagedCache(call.updated("k_cache", "k_cache"), call.updated("v_cache", "v_cache"),
                call.in("k_scale"), call.in("v_scale"));
        Ops.pagedAppend(call.stream(), call.in("k"), call.in("v"), call.in("slot"), rotary, cache);
    }

    private static void mergeStates(Call call) {
        var tokens = call.size("o", 1);
        var heads = call.size("o", 2);
        Ops.mergeStates(call.stream(), call.in("o"), call.in("lse"),
                call.out("o", call.dtype("o"), tokens, heads, call.size("o", 3)),
                call.optionalOut("lse", DType.F32, tokens, heads));
    }

    private static void mlaAttention(Call call) {
        var attributes = call.attributes();
        var options = new MlaOptions(attributes.number("scale", 0), attributes.integer("dv", 512), attributes.flag("causal", true),
                attributes.integer("split_kv_tokens", 0));
        var tokens = new LatentTokens(call.in("page_table"), call.in("kv_len"), call.in("indices"), call.in("topk_len"));
        var batch = call.size("q", 0);
        var queries = call.size("q", 1);
        var heads = call.size("q", 2);
        Ops.mlaAttention(call.stream(), call.in("q"), call.in("cache"), tokens, call.in("sink"),
                call.out("o", call.dtype("q"), batch, queries, heads, 512),
                call.optionalOut("lse", DType.F32, batch, queries, heads), options);
    }
}
