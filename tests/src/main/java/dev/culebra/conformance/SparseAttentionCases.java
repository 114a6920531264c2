package dev.culebra.conformance;

import dev.culebra.BlockMask;
import dev.culebra.DType;
import dev.culebra.NeighborhoodOptions;
import dev.culebra.NsaOptions;
import dev.culebra.Ops;
import java.util.Arrays;
import java.util.Map;

/** Attention to a part of the keys. */
final class SparseAttentionCases {
    private SparseAttentionCases() {}

    static void register(Map<String, Binding> all) {
        all.put("block_sparse_attention", SparseAttentionCases::blockSparseAttention);
        all.put("neighborhood_attention", SparseAttentionCases::neighborhoodAttention);
        all.put("nsa_compress", SparseAttentionCases::nsaCompress);
        all.put("nsa_compressed_attention", SparseAttentionCases::nsaCompressedAttention);
        all.put("nsa_select", SparseAttentionCases::nsaSelect);
        all.put("nsa_selected_attention", SparseAttentionCases::nsaSelectedAttention);
        all.put("nsa_attention", SparseAttentionCases::nsaAttention);
    }

    private static void blockSparseAttention(Call call) {
        var attributes = call.attributes();
        var mask = new BlockMask(call.compact("row_ptr"), call.compact("col"), attributes.integer("block_q", 64),
                attributes.integer("block_k", 64), attributes.integer("head_map", 1));
        Ops.blockSparseAttention(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("cu_q"), call.in("cu_k"), mask,
                call.out("o", call.dtype("q"), call.size("q", 0), call.size("q", 1), call.size("v", 2)),
                call.optionalOut("lse", DType.F32, call.size("q", 0), call.size("q", 1)),
                attributes.flag("causal", false), attributes.number("scale", 0));
    }

    private static void neighborhoodAttention(Call call) {
        var attributes = call.attributes();
        var options = new NeighborhoodOptions(attributes.integers("window"), attributes.integers("stride"),
                attributes.integers("dilation"), attributes.flags("causal"), attributes.number("scale", 0));
        var shape = call.shape("q");
        Ops.neighborhoodAttention(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("extra_k"), call.in("extra_v"),
                call.out("o", call.dtype("q"), shape),
                call.optionalOut("lse", DType.F32, Arrays.copyOf(shape, Math.max(0, shape.length - 1))), options);
    }

    private static NsaOptions nsa(Call call) {
        var attributes = call.attributes();
        return new NsaOptions(
                attributes.oneOf("dialect", NsaOptions.Dialect.LINEAR),
                attributes.integer("l", 32),
                attributes.integer("d", 16),
                attributes.integer("block", 64),
                attributes.integer("topk", 16),
                attributes.integer("init", 1),
                attributes.integer("local", 2),
                attributes.integer("window", 512),
                attributes.oneOf("order", NsaOptions.Order.AUTO),
                attributes.number("scale", 0));
    }

    private static void nsaCompress(Call call) {
        var options = nsa(call);
        var starts = call.size("cu_seqlens", 0);
        Ops.nsaCompress(call.stream(), call.in("x"), call.in("cu_seqlens"), call.in("w"), call.in("pe"),
                call.out("y", call.dtype("x"), call.size("x", 0) / Math.max(1, options.d()), call.size("x", 1), call.size("x", 2)),
                call.out("cu_out", DType.I32, starts), options);
    }

    private static void nsaCompressedAttention(Call call) {
        Ops.nsaCompressedAttention(call.stream(), call.in("q"), call.in("k_cmp"), call.in("v_cmp"), call.in("cu_q"),
                call.in("cu_k"), call.in("cu_cmp"), call.out("o", call.dtype("q"), call.shape("q")),
                call.optionalOut("lse", DType.F32, call.size("q", 0), call.size("q", 1)), nsa(call));
    }

    private static void nsaSelect(Call call) {
        var options = nsa(call);
        var queries = call.size("q", 0);
        var heads = call.size("k_cmp", 1);
        Ops.nsaSelect(call.stream(), call.in("q"), call.in("k_cmp"), call.in("lse"), call.in("cu_q"), call.in("cu_k"),
                call.in("cu_cmp"), call.out("idx", DType.I32, heads, queries, Math.max(0, options.topk())),
                call.out("count", DType.I32, heads, queries), options);
    }

    private static void nsaSelectedAttention(Call call) {
        Ops.nsaSelectedAttention(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("cu_q"), call.in("cu_k"),
                call.in("idx"), call.out("o", call.dtype("q"), call.size("q", 0), call.size("q", 1), call.size("v", 2)),
                call.optionalOut("lse", DType.F32, call.size("q", 0), call.size("q", 1)), nsa(call));
    }

    private static void nsaAttention(Call call) {
        var options = nsa(call);
        Ops.nsaAttention(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("cu_q"), call.in("cu_k"),
                call.in("gates"), call.in("k_cmp"), call.in("v_cmp"), call.in("cu_cmp"),
                call.out("o", call.dtype("q"), call.size("q", 0), call.size("q", 1), call.size("v", 2)),
                call.optionalOut("idx", DType.I32, call.size("k", 1), call.size("q", 0), Math.max(0, options.topk())), options);
    }
}
