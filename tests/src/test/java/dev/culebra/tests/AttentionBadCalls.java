package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;

import dev.culebra.AttentionOptions;
import dev.culebra.DType;
import dev.culebra.Ops;
import dev.culebra.PagedCache;

/** Bad calls of attention. */
final class AttentionBadCalls {
    private AttentionBadCalls() {}

    private static void attention(TestDevice on, int heads, int keyWidth, DType starts, AttentionOptions options) {
        Ops.attention(on.stream, on.zeros(BF16, 8, heads, 64), on.zeros(BF16, 8, 2, keyWidth), on.zeros(BF16, 8, 2, 64),
                on.zeros(starts, 2), on.zeros(I32, 2), null, on.zeros(BF16, 8, heads, 64), null, options);
    }

    private static void paged(TestDevice on, DType stored, int queries) {
        Ops.pagedAttention(on.stream, on.zeros(BF16, 2, queries, 4, 64),
                new PagedCache(on.zeros(stored, 3, 16, 2, 64), on.zeros(stored, 3, 16, 2, 64)), on.zeros(I32, 2, 2),
                on.zeros(I32, 2), null, on.zeros(BF16, 2, queries, 4, 64), null, AttentionOptions.CAUSAL);
    }

    static void add(BadCalls table) {
        var plain = AttentionOptions.DEFAULT;
        table.bad("attention", "Hq % Hkv", Refused.SHAPE, on -> attention(on, 5, 64, I32, plain), "5", "2");
        table.bad("attention", "D differs", Refused.SHAPE, on -> attention(on, 4, 32, I32, plain), "q", "k", "64", "32");
        table.bad("attention", "cu_q in i64", Refused.DTYPE, on -> attention(on, 4, 64, I64, plain), "cu_q", "i64");
        table.bad("attention", "window -2", Refused.RANGE, on -> attention(on, 4, 64, I32, plain.withWindow(-2, -1)), "window_left", "-2");
        table.bad("attention", "negative softcap", Refused.RANGE, on -> attention(on, 4, 64, I32, plain.withSoftcap(-1)), "softcap", "-1");
        table.bad("paged_attention", "f8 without scales", Refused.NULL, on -> paged(on, F8E4M3, 1), "k_scale");
        table.bad("paged_attention", "17 new tokens", Refused.UNSUPPORTED, on -> paged(on, BF16, 17), "17", "16");
        table.bad("paged_attention", "a cache of another type", Refused.DTYPE, on -> paged(on, F16, 1), "k_cache", "f16");
        table.bad("paged_append", "D differs", Refused.SHAPE, on -> Ops.pagedAppend(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(BF16, 4, 2, 64), on.zeros(I64, 4), null,
                new PagedCache(on.zeros(BF16, 2, 8, 2, 128), on.zeros(BF16, 2, 8, 2, 64))), "k_cache", "128", "64");
        table.bad("paged_append", "slot in i32", Refused.DTYPE, on -> Ops.pagedAppend(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(BF16, 4, 2, 64), on.zeros(I32, 4), null,
                new PagedCache(on.zeros(BF16, 2, 8, 2, 64), on.zeros(BF16, 2, 8, 2, 64))), "slot", "i32");
    }
}
