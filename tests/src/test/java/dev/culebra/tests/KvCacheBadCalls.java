package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;
import static dev.culebra.DType.U8;

import dev.culebra.BitmapCache;
import dev.culebra.CcaInputs;
import dev.culebra.CcaState;
import dev.culebra.CcaWeights;
import dev.culebra.DType;
import dev.culebra.KeyIndex;
import dev.culebra.KvSelectOptions;
import dev.culebra.Ops;
import dev.culebra.RotaryTables;
import dev.culebra.Tensor;

/** Bad calls of what is done to a KV cache. */
final class KvCacheBadCalls {
    private KvCacheBadCalls() {}

    private static void compress(TestDevice on, int width, int keep, int stored, DType bits) {
        Ops.bitmapKvCompress(on.stream, on.zeros(BF16, 4, 2, width), on.zeros(BF16, 4, 2, stored), on.zeros(bits, 4, 2, width / 64), keep);
    }

    private static void bitmap(TestDevice on, int heads, int keep, int words, DType values, float scale, int split) {
        var cache = new BitmapCache(on.zeros(values, 3, 16, 2, keep), on.zeros(I64, 3, 16, 2, words), on.zeros(BF16, 3, 16, 2, 40),
                on.zeros(I64, 3, 16, 2, 2));
        Ops.bitmapKvAttention(on.stream, on.zeros(BF16, 1, 1, heads, 128), cache, on.zeros(I32, 1, 2), on.zeros(I32, 1),
                on.zeros(BF16, 1, 4, 2, 128), on.zeros(BF16, 1, 4, 2, 128), on.zeros(I32, 1), on.zeros(BF16, 1, 1, heads, 128), null,
                scale, split);
    }

    private static void stats(TestDevice on, DType lengths, int pages, DType statistics) {
        Ops.kvPageStats(on.stream, on.zeros(F16, 3, 16, 2, 64), on.zeros(I32, 2, 4), on.zeros(I32, 2), on.zeros(lengths, 2),
                on.zeros(statistics, pages, 2, 64), on.zeros(F16, 3, 2, 64));
    }

    private static void select(TestDevice on, int heads, int pages, KvSelectOptions options, Tensor reference, Tensor previous) {
        Ops.kvSelect(on.stream, on.zeros(BF16, 2, heads, 64), on.zeros(BF16, 5, 2, 64), on.zeros(BF16, pages, 2, 64),
                on.zeros(I32, 2, 5), on.zeros(I32, 2), reference, previous, on.zeros(I32, 2, 2, Math.max(options.topk(), 0)), on.zeros(I32, 2, 2),
                options);
    }

    private static void merge(TestDevice on, int massHeads, DType mass, double eps, double protect) {
        Ops.kvMerge(on.stream, on.zeros(BF16, 20, 2, 64), on.zeros(BF16, 20, 2, 32), on.zeros(mass, 20, massHeads), on.zeros(I32, 2),
                on.zeros(BF16, 20, 2, 64), on.zeros(BF16, 20, 2, 32), on.zeros(I32, 20, 2), on.zeros(I32, 1, 2), eps, protect);
    }

    private static void index(TestDevice on, int heads, DType keys, int topk) {
        Ops.mlaIndexTopk(on.stream, on.zeros(F8E4M3, 3, heads, 128), on.zeros(keys, 2, 16, 132), on.zeros(F32, 3, 64), on.zeros(I32, 2),
                on.zeros(I32, 1, 2), on.zeros(I32, 1), on.zeros(I32, 3, Math.max(topk, 0)), topk, KeyIndex.POSITION);
    }

    private static void cca(TestDevice on, int taps, int temperatures, RotaryTables rotary, CcaState state, DType weight) {
        Ops.ccaQkv(on.stream, new CcaInputs(on.zeros(BF16, 1, 4, 128), on.zeros(BF16, 1, 4, 64), on.zeros(BF16, 1, 4, 32), on.zeros(BF16, 1, 4, 32)),
                new CcaWeights(on.zeros(weight, 192, 2), null, on.zeros(BF16, 192, 64, taps), null, on.zeros(F32, temperatures)), rotary, state,
                on.zeros(BF16, 1, 4, 2, 64), on.zeros(BF16, 1, 4, 1, 64), on.zeros(BF16, 1, 4, 1, 64), null);
    }

    static void add(BadCalls table) {
        table.bad("bitmap_kv_compress", "D % 64", Refused.SHAPE, on -> compress(on, 96, 32, 32, I64), "x", "96", "64");
        table.bad("bitmap_kv_compress", "keep % 8", Refused.RANGE, on -> compress(on, 128, 20, 20, I64), "keep", "20");
        table.bad("bitmap_kv_compress", "keep > D", Refused.RANGE, on -> compress(on, 64, 72, 72, I64), "keep", "72", "64");
        table.bad("bitmap_kv_compress", "keep 0", Refused.RANGE, on -> compress(on, 64, 0, 0, I64), "keep", "0");
        table.bad("bitmap_kv_compress", "values of another keep", Refused.SHAPE, on -> compress(on, 64, 16, 24, I64), "values", "24");
        table.bad("bitmap_kv_compress", "bits in i32", Refused.DTYPE, on -> compress(on, 64, 16, 16, I32), "bits", "i32");
        table.bad("bitmap_kv_attention", "Hq % Hkv", Refused.SHAPE, on -> bitmap(on, 3, 40, 2, BF16, 0, 0), "3", "2");
        table.bad("bitmap_kv_attention", "keep % 8", Refused.SHAPE, on -> bitmap(on, 4, 36, 2, BF16, 0, 0), "k_values", "36");
        table.bad("bitmap_kv_attention", "words of bits", Refused.SHAPE, on -> bitmap(on, 4, 40, 1, BF16, 0, 0), "k_bits", "1");
        table.bad("bitmap_kv_attention", "a cache of another type", Refused.DTYPE, on -> bitmap(on, 4, 40, 2, F16, 0, 0), "k_values", "f16");
        table.bad("bitmap_kv_attention", "negative split", Refused.RANGE, on -> bitmap(on, 4, 40, 2, BF16, 0, -1), "split_kv_tokens", "-1");
        table.bad("bitmap_kv_attention", "infinite scale", Refused.RANGE, on -> bitmap(on, 4, 40, 2, BF16, Float.POSITIVE_INFINITY, 0), "scale");
        table.bad("kv_page_stats", "kv_len in i64", Refused.DTYPE, on -> stats(on, I64, 3, F16), "kv_len", "i64");
        table.bad("kv_page_stats", "pages differ", Refused.SHAPE, on -> stats(on, I32, 4, F16), "page_min", "4");
        table.bad("kv_page_stats", "statistics of another type", Refused.DTYPE, on -> stats(on, I32, 3, F32), "page_min", "f32");
        var options = new KvSelectOptions(4, 1, 1);
        table.bad("kv_select", "Hq % Hkv", Refused.SHAPE, on -> select(on, 3, 5, options, null, null), "3", "2");
        table.bad("kv_select", "page_min and page_max differ", Refused.SHAPE, on -> select(on, 4, 4, options, null, null), "page_max", "page_min");
        table.bad("kv_select", "topk < sink + recent", Refused.RANGE, on -> select(on, 4, 5, new KvSelectOptions(1, 1, 1), null, null), "topk", "1", "2");
        table.bad("kv_select", "topk 0", Refused.RANGE, on -> select(on, 4, 5, new KvSelectOptions(0, 0, 0), null, null), "topk", "0");
        table.bad("kv_select", "negative sink", Refused.RANGE, on -> select(on, 4, 5, new KvSelectOptions(4, -1, 0), null, null), "sink", "-1");
        table.bad("kv_select", "theta 2", Refused.RANGE, on -> select(on, 4, 5, new KvSelectOptions(4, 1, 1, 2), null, null), "theta", "2");
        table.bad("kv_select", "q_ref without prev_idx", Refused.NULL, on -> select(on, 4, 5, options, on.zeros(BF16, 2, 4, 64), null), "prev_idx");
        table.bad("kv_select", "q_ref of another shape", Refused.SHAPE,
                on -> select(on, 4, 5, options, on.zeros(BF16, 2, 2, 64), on.zeros(I32, 2, 2, 4)), "q_ref");
        table.bad("kv_merge", "attn_mass per token", Refused.SHAPE, on -> merge(on, 1, F32, 0.75, 0), "attn_mass", "1");
        table.bad("kv_merge", "attn_mass in bf16", Refused.DTYPE, on -> merge(on, 2, BF16, 0.75, 0), "attn_mass", "bf16");
        table.bad("kv_merge", "protect > 1", Refused.RANGE, on -> merge(on, 2, F32, 0.75, 1.5), "protect", "1.5");
        table.bad("kv_merge", "negative eps", Refused.RANGE, on -> merge(on, 2, F32, -0.5, 0), "eps", "-0.5");
        table.bad("mla_index_topk", "63 heads", Refused.SHAPE, on -> index(on, 63, U8, 8), "q", "63", "64");
        table.bad("mla_index_topk", "keys in i32", Refused.DTYPE, on -> index(on, 64, I32, 8), "keys", "i32");
        table.bad("mla_index_topk", "topk 0", Refused.RANGE, on -> index(on, 64, U8, 0), "topk", "0");
        table.bad("mla_index_topk", "topk 5000", Refused.UNSUPPORTED, on -> index(on, 64, U8, 5000), "topk", "5000", "4096");
        table.bad("cca_qkv", "three taps", Refused.SHAPE, on -> cca(on, 3, 1, null, null, BF16), "conv2_w", "3");
        table.bad("cca_qkv", "two temperatures", Refused.SHAPE, on -> cca(on, 2, 2, null, null, BF16), "temp", "2");
        table.bad("cca_qkv", "weights of another type", Refused.DTYPE, on -> cca(on, 2, 1, null, null, F16), "conv1_w", "f16");
        table.bad("cca_qkv", "cos without sin", Refused.NULL, on -> cca(on, 2, 1, new RotaryTables(on.zeros(F32, 1, 4, 16), null, false), null, BF16), "sin");
        table.bad("cca_qkv", "half a state", Refused.NULL, on -> cca(on, 2, 1, null, new CcaState(on.zeros(BF16, 1, 192, 2), null), BF16), "v_state");
        table.bad("cca_qkv", "R > D", Refused.SHAPE,
                on -> cca(on, 2, 1, new RotaryTables(on.zeros(F32, 1, 4, 33), on.zeros(F32, 1, 4, 33), false), null, BF16), "cos", "66", "64");
    }
}
