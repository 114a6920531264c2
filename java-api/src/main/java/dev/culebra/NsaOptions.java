package dev.culebra;

/**
 * Attributes of native sparse attention; an operator reads those that concern it. Immutable; start from {@link #MEAN} or
 * {@link #LINEAR}.
 *
 * @param dialect how keys and values are compressed
 * @param l tokens that become one compressed key
 * @param d tokens from one compressed key to the next; divides l
 * @param block tokens of a selected block; a multiple of d, in the mean dialect l = d = block
 * @param topk blocks that a query attends to, forced ones included
 * @param init first blocks of the sequence that are always selected
 * @param local last blocks up to the query's own that are always selected
 * @param window tokens of the window, the own one included
 * @param order which loop of the selected attention is outside
 * @param scale of the scores; 0 = D^-1/2
 */
public record NsaOptions(
        Dialect dialect, int l, int d, int block, int topk, int init, int local, int window, Order order, float scale) {
    /** How keys and values are compressed. */
    public enum Dialect {
        /** Blocks are averaged. */
        MEAN,
        /** Overlapping blocks pass a learned projection. */
        LINEAR
    }

    /** Which loop of the selected attention is outside; results agree within rounding. */
    public enum Order {
        /** As the group's size suggests. */
        AUTO,
        /** Each query gathers its blocks. */
        QUERY,
        /** Each block gathers the queries that chose it. */
        KV
    }

    /** The published attributes: 32 tokens every 16, 16 blocks of 64, a window of 512. */
    public static final NsaOptions LINEAR = new NsaOptions(Dialect.LINEAR, 32, 16, 64, 16, 1, 2, 512, Order.AUTO, 0);

    /** Averages of blocks of 64 tokens, which are also what is selected. */
    public static final NsaOptions MEAN = new NsaOptions(Dialect.MEAN, 64, 64, 64, 16, 1, 2, 512, Order.AUTO, 0);

    /** Other compressed keys. */
    public NsaOptions withCompression(int tokens, int every) {
        return new NsaOptions(dialect, tokens, every, block, topk, init, local, window, order, scale);
    }

    /** Another selection. */
    public NsaOptions withSelection(int tokens, int blocks, int first, int last) {
        return new NsaOptions(dialect, l, d, tokens, blocks, first, last, window, order, scale);
    }

    /** Another window. */
    public NsaOptions withWindow(int tokens) {
        return new NsaOptions(dialect, l, d, block, topk, init, local, tokens, order, scale);
    }

    /** Another order. */
    public NsaOptions withOrder(Order value) {
        return new NsaOptions(dialect, l, d, block, topk, init, local, window, value, scale);
    }

    /** Another scale. */
    public NsaOptions withScale(float value) {
        return new NsaOptions(dialect, l, d, block, topk, init, local, window, order, value);
    }
}
