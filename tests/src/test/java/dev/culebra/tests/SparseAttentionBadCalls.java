package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;

import dev.culebra.BlockMask;
import dev.culebra.DType;
import dev.culebra.NeighborhoodOptions;
import dev.culebra.NsaOptions;
import dev.culebra.Ops;
import dev.culebra.Tensor;

/** Bad calls of attention to a part of the keys. */
final class SparseAttentionBadCalls {
    private SparseAttentionBadCalls() {}

    private static void blocks(TestDevice on, DType rowType, int rows, int block, int headMap) {
        blocks(on, on.zeros(BF16, 64, 2, 32), new BlockMask(on.zeros(rowType, rows), on.zeros(I32, 4), block, 64, headMap), 32);
    }

    private static void blocks(TestDevice on, Tensor k, BlockMask mask, int width) {
        Ops.blockSparseAttention(on.stream, on.zeros(BF16, 64, 4, width), k, on.zeros(BF16, 64, 2, 32), on.zeros(I32, 2),
                on.zeros(I32, 2), mask, on.zeros(BF16, 64, 4, 32), null, false, 0);
    }

    private static void neighborhood(TestDevice on, NeighborhoodOptions options) {
        neighborhood(on, on.zeros(BF16, 1, 12, 9, 2, 32), null, options);
    }

    private static void neighborhood(TestDevice on, Tensor k, Tensor extra, NeighborhoodOptions options) {
        Ops.neighborhoodAttention(on.stream, on.zeros(BF16, 1, 12, 9, 4, 32), k, on.zeros(BF16, 1, 12, 9, 2, 32), extra, null,
                on.zeros(BF16, 1, 12, 9, 4, 32), null, options);
    }

    private static void compress(TestDevice on, DType starts, Tensor w, NsaOptions options) {
        Ops.nsaCompress(on.stream, on.zeros(BF16, 64, 1, 16), on.zeros(starts, 2), w, null, on.zeros(BF16, 4, 1, 16),
                on.zeros(I32, 2), options);
    }

    private static void compressed(TestDevice on, DType keys, int valueWidth, int starts, NsaOptions options) {
        Ops.nsaCompressedAttention(on.stream, on.zeros(BF16, 64, 4, 32), on.zeros(keys, 3, 2, 32), on.zeros(BF16, 3, 2, valueWidth),
                on.zeros(I32, 2), on.zeros(I32, 2), on.zeros(I32, starts), on.zeros(BF16, 64, 4, 32), null, options);
    }

    private static void select(TestDevice on, DType lse, int entries, NsaOptions options) {
        Ops.nsaSelect(on.stream, on.zeros(BF16, 64, 4, 32), on.zeros(BF16, 3, 2, 32), on.zeros(lse, 64, 4), on.zeros(I32, 2),
                on.zeros(I32, 2), on.zeros(I32, 2), on.zeros(I32, 2, 64, entries), on.zeros(I32, 2, 64), options);
    }

    private static void selected(TestDevice on, DType indices, int heads, int block) {
        Ops.nsaSelectedAttention(on.stream, on.zeros(BF16, 64, 4, 32), on.zeros(BF16, 64, 2, 32), on.zeros(BF16, 64, 2, 32),
                on.zeros(I32, 2), on.zeros(I32, 2), on.zeros(indices, heads, 64, 3), on.zeros(BF16, 64, 4, 32), null,
                NsaOptions.LINEAR.withSelection(block, 16, 1, 2));
    }

    private static void attention(TestDevice on, Tensor gates, Tensor kCmp, NsaOptions options) {
        Ops.nsaAttention(on.stream, on.zeros(BF16, 64, 4, 32), on.zeros(BF16, 64, 2, 32), on.zeros(BF16, 64, 2, 32),
                on.zeros(I32, 2), on.zeros(I32, 2), gates, kCmp, null, null, on.zeros(BF16, 64, 4, 32), null, options);
    }

    static void add(BadCalls table) {
        var op = "block_sparse_attention";
        table.bad(op, "D differs", Refused.SHAPE, on -> blocks(on, on.zeros(BF16, 64, 2, 32),
                new BlockMask(on.zeros(I64, 2), on.zeros(I32, 4), 64, 64, 1), 48), "k", "32", "D as q's");
        table.bad(op, "Hq % Hkv", Refused.SHAPE, on -> Ops.blockSparseAttention(on.stream, on.zeros(BF16, 64, 3, 32),
                on.zeros(BF16, 64, 2, 32), on.zeros(BF16, 64, 2, 32), on.zeros(I32, 2), on.zeros(I32, 2),
                new BlockMask(on.zeros(I64, 2), on.zeros(I32, 4), 64, 64, 1), on.zeros(BF16, 64, 3, 32), null, false, 0), "3", "2");
        table.bad(op, "row_ptr in i32", Refused.DTYPE, on -> blocks(on, I32, 2, 64, 1), "row_ptr", "i32");
        table.bad(op, "block_q 8", Refused.RANGE, on -> blocks(on, I64, 2, 8, 1), "block_q", "8");
        table.bad(op, "head_map 3", Refused.RANGE, on -> blocks(on, I64, 4, 64, 3), "head_map", "3", "Hkv = 2");
        table.bad(op, "rows of half a mask head", Refused.SHAPE, on -> blocks(on, I64, 4, 64, 2), "row_ptr", "Hm = 2");
        table.bad(op, "too few rows", Refused.SHAPE, on -> blocks(on, I64, 2, 32, 1), "row_ptr", "q is [64, 4, 32]");
        table.bad(op, "no mask", Refused.NULL, on -> blocks(on, on.zeros(BF16, 64, 2, 32), new BlockMask(null, null, 64, 64, 1), 32),
                "row_ptr");

        op = "neighborhood_attention";
        var window = NeighborhoodOptions.window(3, 5);
        table.bad(op, "one window for two axes", Refused.RANGE, on -> neighborhood(on, NeighborhoodOptions.window(3)), "window", "1", "2");
        table.bad(op, "three strides for two axes", Refused.RANGE, on -> neighborhood(on, window.withStride(1, 1, 1)), "stride", "3");
        table.bad(op, "causal for one of two axes", Refused.RANGE, on -> neighborhood(on, window.withCausal(true)), "causal", "1", "2");
        table.bad(op, "no window", Refused.RANGE, on -> neighborhood(on, NeighborhoodOptions.window(0, 5)), "window[0]", "0");
        table.bad(op, "stride beyond the window", Refused.RANGE, on -> neighborhood(on, window.withStride(4, 1)), "stride[0]", "4", "3");
        table.bad(op, "dilation 0", Refused.RANGE, on -> neighborhood(on, window.withDilation(1, 0)), "dilation[1]", "0");
        table.bad(op, "window times dilation", Refused.RANGE, on -> neighborhood(on, window.withDilation(1, 2)), "10", "9");
        table.bad(op, "k on another grid", Refused.SHAPE, on -> neighborhood(on, on.zeros(BF16, 1, 12, 8, 2, 32), null, window), "k", "8", "9");
        table.bad(op, "k of another type", Refused.DTYPE, on -> neighborhood(on, on.zeros(F16, 1, 12, 9, 2, 32), null, window), "k", "f16");
        table.bad(op, "extra keys without values", Refused.NULL, on -> neighborhood(on, on.zeros(BF16, 1, 12, 9, 2, 32),
                on.zeros(BF16, 1, 3, 2, 32), window), "extra_v");
        table.bad(op, "no axis", Refused.SHAPE, on -> Ops.neighborhoodAttention(on.stream, on.zeros(BF16, 1, 4, 32),
                on.zeros(BF16, 1, 4, 32), on.zeros(BF16, 1, 4, 32), null, null, on.zeros(BF16, 1, 4, 32), null, window), "q", "[1, 4, 32]");

        op = "nsa_compress";
        var linear = NsaOptions.LINEAR;
        var mean = NsaOptions.MEAN.withCompression(16, 16).withSelection(16, 4, 1, 2);
        table.bad(op, "d does not divide l", Refused.RANGE, on -> compress(on, I32, on.zeros(BF16, 1, 32, 16, 16),
                linear.withCompression(32, 24)), "24", "32");
        table.bad(op, "l 0", Refused.RANGE, on -> compress(on, I32, null, mean.withCompression(0, 16)), "l", "0");
        table.bad(op, "no weights", Refused.NULL, on -> compress(on, I32, null, linear), "w");
        table.bad(op, "averages with weights", Refused.UNSUPPORTED, on -> compress(on, I32, on.zeros(BF16, 1, 16, 16, 16), mean), "w", "mean");
        table.bad(op, "weights of another l", Refused.SHAPE, on -> compress(on, I32, on.zeros(BF16, 1, 16, 16, 16), linear), "w", "16", "32");
        table.bad(op, "cu_seqlens in i64", Refused.DTYPE, on -> compress(on, I64, null, mean), "cu_seqlens", "i64");

        op = "nsa_compressed_attention";
        table.bad(op, "d does not divide l", Refused.RANGE, on -> compressed(on, BF16, 32, 2, linear.withCompression(32, 12)), "12", "32");
        table.bad(op, "values of another width", Refused.SHAPE, on -> compressed(on, BF16, 16, 2, linear), "v_cmp", "16", "32");
        table.bad(op, "keys of another type", Refused.DTYPE, on -> compressed(on, F16, 32, 2, linear), "k_cmp", "f16");
        table.bad(op, "a start too many", Refused.SHAPE, on -> compressed(on, BF16, 32, 3, linear), "cu_cmp", "3");

        op = "nsa_select";
        table.bad(op, "topk below the forced blocks", Refused.RANGE, on -> select(on, F32, 2, linear.withSelection(64, 2, 1, 2)), "topk", "2");
        table.bad(op, "d does not divide block", Refused.RANGE, on -> select(on, F32, 16, linear.withSelection(40, 16, 1, 2)), "16", "40");
        table.bad(op, "init -1", Refused.RANGE, on -> select(on, F32, 16, linear.withSelection(64, 16, -1, 2)), "init", "-1");
        table.bad(op, "idx of another topk", Refused.SHAPE, on -> select(on, F32, 8, linear), "idx", "8", "16");
        table.bad(op, "lse in bf16", Refused.DTYPE, on -> select(on, BF16, 16, linear), "lse", "bf16");

        op = "nsa_selected_attention";
        table.bad(op, "idx in i64", Refused.DTYPE, on -> selected(on, I64, 2, 64), "idx", "i64");
        table.bad(op, "idx per query head", Refused.SHAPE, on -> selected(on, I32, 4, 64), "idx", "4", "2");
        table.bad(op, "block 0", Refused.RANGE, on -> selected(on, I32, 2, 0), "block", "0");

        op = "nsa_attention";
        table.bad(op, "two gates", Refused.SHAPE, on -> attention(on, on.zeros(F32, 64, 4, 2), null, mean), "gates", "2", "3");
        table.bad(op, "gates in bf16", Refused.DTYPE, on -> attention(on, on.zeros(BF16, 64, 4, 3), null, mean), "gates", "bf16");
        table.bad(op, "linear without compressed keys", Refused.NULL, on -> attention(on, on.zeros(F32, 64, 4, 3), null, linear), "k_cmp");
        table.bad(op, "averages beside compressed keys", Refused.UNSUPPORTED, on -> attention(on, on.zeros(F32, 64, 4, 3),
                on.zeros(BF16, 4, 2, 32), mean), "k_cmp", "mean");
        table.bad(op, "averages of another block", Refused.RANGE, on -> attention(on, on.zeros(F32, 64, 4, 3), null,
                mean.withSelection(32, 4, 1, 2)), "16", "32");
        table.bad(op, "window 0", Refused.RANGE, on -> attention(on, on.zeros(F32, 64, 4, 3), null, mean.withWindow(0)), "window", "0");
    }
}
