package dev.culebra.conformance;

import dev.culebra.BitmapCache;
import dev.culebra.CcaInputs;
import dev.culebra.CcaState;
import dev.culebra.CcaWeights;
import dev.culebra.DType;
import dev.culebra.KeyIndex;
import dev.culebra.KvSelectOptions;
import dev.culebra.Ops;
import dev.culebra.RotaryTables;
import java.util.Map;

/** What is done to a KV cache. */
final class KvCacheCases {
    private KvCacheCases() {}

    static void register(Map<String, Binding> all) {
        all.put("bitmap_kv_compress", KvCacheCases::compress);
        all.put("bitmap_kv_attention", KvCacheCases::bitmapAttention);
        all.put("kv_page_stats", KvCacheCases::pageStats);
        all.put("kv_select", KvCacheCases::select);
        all.put("kv_merge", KvCacheCases::merge);
        all.put("mla_index_topk", KvCacheCases::indexTopk);
        all.put("cca_qkv", KvCacheCases::cca);
    }

    private static void compress(Call call) {
        var keep = call.attributes().integer("keep", 0);
        var tokens = call.size("x", 0);
        var heads = call.size("x", 1);
        Ops.bitmapKvCompress(call.stream(), call.in("x"), call.out("values", call.dtype("x"), tokens, heads, Math.max(keep, 0)),
                call.out("bits", DType.I64, tokens, heads, call.size("x", 2) / 64), keep);
    }

    private static void bitmapAttention(Call call) {
        var cache = new BitmapCache(call.in("k_values"), call.in("k_bits"), call.in("v_values"), call.in("v_bits"));
        Ops.bitmapKvAttention(call.stream(), call.in("q"), cache, call.in("page_table"), call.in("kv_len"), call.in("k_tail"),
                call.in("v_tail"), call.in("tail_len"), call.out("o", call.dtype("q"), call.shape("q")),
                call.optionalOut("lse", DType.F32, call.size("q", 0), call.size("q", 1), call.size("q", 2)),
                call.attributes().number("scale", 0), call.attributes().integer("split_kv_tokens", 0));
    }

    private static void pageStats(Call call) {
        Ops.kvPageStats(call.stream(), call.in("k_cache"), call.in("page_table"), call.in("first_token"), call.in("kv_len"),
                call.updated("page_min", "page_min"), call.updated("page_max", "page_max"));
    }

    private static void select(Call call) {
        var attributes = call.attributes();
        var options = new KvSelectOptions(attributes.integer("topk", 0), attributes.integer("sink", 0),
                attributes.integer("recent", 0), attributes.number("theta", 0));
        var heads = call.size("page_min", 1);
        Ops.kvSelect(call.stream(), call.in("q"), call.in("page_min"), call.in("page_max"), call.in("page_table"),
                call.in("page_count"), call.in("q_ref"), call.in("prev_idx"),
                call.out("idx", DType.I32, call.size("q", 0), heads, Math.max(options.topk(), 0)),
                call.out("count", DType.I32, call.size("q", 0), heads), options);
    }

    private static void merge(Call call) {
        var attributes = call.attributes();
        var tokens = call.size("k", 0);
        var heads = call.size("k", 1);
        Ops.kvMerge(call.stream(), call.in("k"), call.in("v"), call.in("attn_mass"), call.in("cu_seqlens"),
                call.out("k", call.dtype("k"), call.shape("k")), call.out("v", call.dtype("v"), call.shape("v")),
                call.out("origin", DType.I32, tokens, heads),
                call.out("count", DType.I32, call.size("cu_seqlens", 0) - 1, heads),
                attributes.real("eps", 0.75), attributes.real("protect", 0));
    }

    private static void indexTopk(Call call) {
        var topk = call.attributes().integer("topk", 2048);
        var index = call.attributes().oneOf("index", KeyIndex.POSITION);
        Ops.mlaIndexTopk(call.stream(), call.in("q"), call.compact("keys"), call.in("weights"), call.in("cu_q"),
                call.in("page_table"), call.in("kv_len"), call.out("idx", DType.I32, call.size("q", 0), topk), topk, index);
    }

    private static void cca(Call call) {
        var inputs = new CcaInputs(call.in("x_q"), call.in("x_k"), call.in("x_v1"), call.in("x_v2"));
        var weights = new CcaWeights(call.in("conv1_w"), call.in("conv1_b"), call.in("conv2_w"), call.in("conv2_b"),
                call.in("temp"));
        var rotary = call.has("cos") || call.has("sin") ? new RotaryTables(call.in("cos"), call.in("sin"), false) : null;
        var state = call.has("conv_state") || call.has("v_state")
                ? new CcaState(call.in("conv_state"), call.in("v_state")) : null;
        var dtype = call.dtype("x_q");
        var batch = call.size("x_q", 0);
        var tokens = call.size("x_q", 1);
        var dim = Math.max(call.size("conv2_w", 1), 1);
        var heads = call.size("x_k", 2) / dim;
        var next = call.wants("conv_state") || call.wants("v_state") ? new CcaState(
                call.out("conv_state", dtype, batch, call.size("x_q", 2) + call.size("x_k", 2), 2),
                call.out("v_state", dtype, batch, call.size("x_v2", 2))) : null;
        Ops.ccaQkv(call.stream(), inputs, weights, rotary, state,
                call.out("q", dtype, batch, tokens, call.size("x_q", 2) / dim, dim),
                call.out("k", dtype, batch, tokens, heads, dim), call.out("v", dtype, batch, tokens, heads, dim), next);
    }
}
