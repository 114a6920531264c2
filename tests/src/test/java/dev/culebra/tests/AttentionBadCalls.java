package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;
import static dev.culebra.DType.U8;

import dev.culebra.AttentionOptions;
import dev.culebra.DType;
import dev.culebra.LatentTokens;
import dev.culebra.MlaOptions;
import dev.culebra.Ops;
import dev.culebra.PagedCache;
import dev.culebra.RotaryTables;
import dev.culebra.Tensor;

/** Bad calls of attention. */
final class AttentionBadCalls {
    private AttentionBadCalls() {}

    private static void attention(TestDevice on, int heads, int keyWidth, DType starts, AttentionOptions options) {
        Ops.attention(on.stream, on.zeros(BF16, 8, heads, 64), on.zeros(BF16, 8, 2, keyWidth), on.zeros(BF16, 8, 2, 64),
                on.zeros(starts, 2), on.zeros(I32, 2), null, on.zeros(BF16, 8, heads, 64), null, options);
    }

    private static void sink(TestDevice on, DType type, int sinks) {
        Ops.attention(on.stream, on.zeros(BF16, 8, 4, 64), on.zeros(BF16, 8, 2, 64), on.zeros(BF16, 8, 2, 64), on.zeros(I32, 2),
                on.zeros(I32, 2), on.zeros(type, sinks), on.zeros(BF16, 8, 4, 64), null, AttentionOptions.DEFAULT);
    }

    private static void append(TestDevice on, DType stored, RotaryTables rotary) {
        Ops.pagedAppend(on.stream, on.zeros(BF16, 4, 2, 64), on.zeros(BF16, 4, 2, 64), on.zeros(I64, 4), rotary,
                new PagedCache(on.zeros(stored, 2, 8, 2, 64), on.zeros(stored, 2, 8, 2, 64)));
    }

    private static void paged(TestDevice on, DType stored, int queries) {
        paged(on, stored, queries, AttentionOptions.CAUSAL);
    }

    private static void paged(TestDevice on, DType stored, int queries, AttentionOptions options) {
        Ops.pagedAttention(on.stream, on.zeros(BF16, 2, queries, 4, 64),
                new PagedCache(on.zeros(stored, 3, 16, 2, 64), on.zeros(stored, 3, 16, 2, 64)), on.zeros(I32, 2, 2),
                on.zeros(I32, 2), null, on.zeros(BF16, 2, queries, 4, 64), null, options);
    }

    private static void merge(TestDevice on, DType logs, int rows, int width) {
        Ops.mergeStates(on.stream, on.zeros(BF16, 2, 3, 4, 64), on.zeros(logs, 2, rows, 4), on.zeros(BF16, 3, 4, width), null);
    }

    private static void latent(TestDevice on, Tensor cache, int width, LatentTokens tokens, MlaOptions options) {
        Ops.mlaAttention(on.stream, on.zeros(BF16, 2, 1, 4, width), cache, tokens, null, on.zeros(BF16, 2, 1, 4, 512), null, options);
    }

    private static void latent(TestDevice on, LatentTokens tokens) {
        latent(on, on.zeros(BF16, 3, 16, 576), 576, tokens, MlaOptions.DEFAULT);
    }

    private static LatentTokens pages(TestDevice on) {
        return LatentTokens.paged(on.zeros(I32, 2, 2), on.zeros(I32, 2));
    }

    static void add(BadCalls table) {
        var plain = AttentionOptions.DEFAULT;
        table.bad("attention", "Hq % Hkv", Refused.SHAPE, on -> attention(on, 5, 64, I32, plain), "5", "2");
        table.bad("attention", "D differs", Refused.SHAPE, on -> attention(on, 4, 32, I32, plain), "q", "k", "64", "32");
        table.bad("attention", "cu_q in i64", Refused.DTYPE, on -> attention(on, 4, 64, I64, plain), "cu_q", "i64");
        table.bad("attention", "window -2", Refused.RANGE, on -> attention(on, 4, 64, I32, plain.withWindow(-2, -1)), "window_left", "-2");
        table.bad("attention", "negative softcap", Refused.RANGE, on -> attention(on, 4, 64, I32, plain.withSoftcap(-1)), "softcap", "-1");
        table.bad("attention", "sinks of another count", Refused.SHAPE, on -> sink(on, F32, 2), "sink", "2", "4");
        table.bad("attention", "sinks in bf16", Refused.DTYPE, on -> sink(on, BF16, 4), "sink", "bf16");
        table.bad("paged_attention", "a split of -1", Refused.RANGE, on -> paged(on, BF16, 1, AttentionOptions.CAUSAL.withSplitKvTokens(-1)),
                "split_kv_tokens", "-1");
        table.bad("paged_attention", "window -2", Refused.RANGE, on -> paged(on, BF16, 1, AttentionOptions.CAUSAL.withWindow(0, -2)),
                "window_right", "-2");
        table.bad("paged_attention", "f8 without scales", Refused.NULL, on -> paged(on, F8E4M3, 1), "k_scale");
        table.bad("paged_attention", "17 new tokens", Refused.UNSUPPORTED, on -> paged(on, BF16, 17), "17", "16");
        table.bad("paged_attention", "a cache of another type", Refused.DTYPE, on -> paged(on, F16, 1), "k_cache", "f16");
        table.bad("paged_append", "D differs", Refused.SHAPE, on -> Ops.pagedAppend(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(BF16, 4, 2, 64), on.zeros(I64, 4), null,
                new PagedCache(on.zeros(BF16, 2, 8, 2, 128), on.zeros(BF16, 2, 8, 2, 64))), "k_cache", "128", "64");
        table.bad("paged_append", "slot in i32", Refused.DTYPE, on -> Ops.pagedAppend(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(BF16, 4, 2, 64), on.zeros(I32, 4), null,
                new PagedCache(on.zeros(BF16, 2, 8, 2, 64), on.zeros(BF16, 2, 8, 2, 64))), "slot", "i32");
        table.bad("paged_append", "cos without sin", Refused.NULL,
                on -> append(on, BF16, new RotaryTables(on.zeros(F32, 4, 16), null, false)), "sin");
        table.bad("paged_append", "R > D", Refused.SHAPE,
                on -> append(on, BF16, new RotaryTables(on.zeros(F32, 4, 33), on.zeros(F32, 4, 33), false)), "cos", "33", "64");
        table.bad("paged_append", "f8 without scales", Refused.NULL, on -> append(on, F8E4M3, null), "k_scale");
        table.bad("merge_states", "lse in bf16", Refused.DTYPE, on -> merge(on, BF16, 3, 64), "lse", "bf16");
        table.bad("merge_states", "rows differ", Refused.SHAPE, on -> merge(on, F32, 2, 64), "lse", "[2, 2, 4]", "3");
        table.bad("merge_states", "D differs", Refused.SHAPE, on -> merge(on, F32, 3, 32), "merged_o", "32", "64");
        table.bad("mla_attention", "latent width", Refused.SHAPE,
                on -> latent(on, on.zeros(BF16, 3, 16, 576), 512, pages(on), MlaOptions.DEFAULT), "q", "512", "576");
        table.bad("mla_attention", "bytes of a token", Refused.SHAPE,
                on -> latent(on, on.zeros(U8, 3, 16, 576), 576, pages(on), MlaOptions.DEFAULT), "cache", "576", "656");
        table.bad("mla_attention", "a cache of another type", Refused.DTYPE,
                on -> latent(on, on.zeros(F16, 3, 16, 576), 576, pages(on), MlaOptions.DEFAULT), "cache", "f16");
        table.bad("mla_attention", "dv", Refused.RANGE,
                on -> latent(on, on.zeros(BF16, 3, 16, 576), 576, pages(on), new MlaOptions(0, 256, true, 0)), "dv", "256", "512");
        table.bad("mla_attention", "both addressings", Refused.UNSUPPORTED,
                on -> latent(on, new LatentTokens(on.zeros(I32, 2, 2), on.zeros(I32, 2), on.zeros(I32, 2, 1, 8), null)), "indices", "page_table");
        table.bad("mla_attention", "no addressing", Refused.NULL, on -> latent(on, new LatentTokens(null, null, null, null)), "page_table", "indices");
        table.bad("mla_attention", "pages without lengths", Refused.NULL,
                on -> latent(on, new LatentTokens(on.zeros(I32, 2, 2), null, null, null)), "kv_len");
        table.bad("mla_attention", "lengths of a list that is absent", Refused.UNSUPPORTED,
                on -> latent(on, new LatentTokens(on.zeros(I32, 2, 2), on.zeros(I32, 2), null, on.zeros(I32, 2, 1))), "topk_len", "indices");
        table.bad("mla_attention", "a list of another batch", Refused.SHAPE,
                on -> latent(on, LatentTokens.listed(on.zeros(I32, 3, 1, 8), null)), "indices", "[3, 1, 8]", "2");
        table.bad("mla_attention", "a split of -1", Refused.RANGE, on -> latent(on, on.zeros(BF16, 3, 16, 576), 576, pages(on),
                MlaOptions.DEFAULT.withSplitKvTokens(-1)), "split_kv_tokens", "-1");
    }
}
