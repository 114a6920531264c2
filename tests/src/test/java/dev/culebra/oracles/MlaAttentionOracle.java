package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.conformance.HostTensor;
import java.util.Arrays;

/** Attention over latent rows of 576 whose first 512 channels are the values. */
final class MlaAttentionOracle implements Oracle {
    private static final int WIDTH = 576;
    private static final int VALUE_WIDTH = 512;

    @Override
    public void solve(Problem p) {
        var batch = p.size("q", 0);
        var queries = p.size("q", 1);
        var heads = p.size("q", 2);
        var page = p.size("cache", 1);
        var q = p.values("q");
        var cache = p.in("cache").dtype() == DType.U8 ? widened(p.in("cache")) : p.values("cache");
        var sink = p.values("sink", heads, Double.NEGATIVE_INFINITY);
        var indexed = p.has("indices");
        var attention = SoftmaxAttention.of(p.attributes(), WIDTH, !indexed);
        p.attributes().integer("dv", VALUE_WIDTH);
        p.attributes().integer("split_kv_tokens", 0);
        var o = new double[batch * queries * heads * VALUE_WIDTH];
        var lse = new double[batch * queries * heads];
        for (var b = 0; b < batch; b++) {
            for (var i = 0; i < queries; i++) {
                var tokens = indexed ? listed(p, b * queries + i) : paged(p, b, page);
                SoftmaxAttention.Rows rows = j -> tokens[j] * WIDTH;
                for (var h = 0; h < heads; h++) {
                    var at = (b * queries + i) * heads + h;
                    // A list has no order: its rows are seen from behind the last one.
                    var position = indexed ? tokens.length : i + tokens.length - queries;
                    lse[at] = attention.attend(q, at * WIDTH, cache, rows, cache, rows, tokens.length, position, sink[h], WIDTH,
                            VALUE_WIDTH, o, at * VALUE_WIDTH);
                }
            }
        }
        p.out("o", o, batch, queries, heads, VALUE_WIDTH);
        p.out("lse", lse, batch, queries, heads);
    }

    private static int[] paged(Problem p, int sequence, int page) {
        var table = p.ints("page_table");
        var columns = p.size("page_table", 1);
        var tokens = new int[p.ints("kv_len")[sequence]];
        Arrays.setAll(tokens, j -> table[sequence * columns + j / page] * page + j % page);
        return tokens;
    }

    private static int[] listed(Problem p, int query) {
        var all = p.ints("indices");
        var columns = p.size("indices", 2);
        var count = p.has("topk_len") ? p.ints("topk_len")[query] : columns;
        return Arrays.stream(all, query * columns, query * columns + count).filter(token -> token >= 0).toArray();
    }

    /** Tokens of 656 bytes: 512 e4m3, a scale for each 128 of them, 64 bf16. */
    static double[] widened(HostTensor bytes) {
        var tokens = Math.toIntExact(bytes.elements() / 656);
        var values = new double[tokens * WIDTH];
        for (var t = 0; t < tokens; t++) {
            var first = t * 656L;
            for (var c = 0; c < WIDTH; c++) {
                values[t * WIDTH + c] = c < VALUE_WIDTH
                        ? number(bytes, DType.F8E4M3, first + c) * number(bytes, DType.F32, first + 512 + c / 128 * 4L)
                        : number(bytes, DType.BF16, first + 528 + (c - VALUE_WIDTH) * 2L);
            }
        }
        return values;
    }

    private static double number(HostTensor bytes, DType dtype, long at) {
        return new HostTensor(dtype, new long[] {1}, bytes.data().asSlice(at, dtype.bytes())).get(0);
    }
}
