package dev.culebra.oracles;

/** Where the N sequences lie among the tokens [B, T], and which rows of a pool hold their states. */
record Sequences(int count, int[] begin, int[] end, int[] read, int[] write) {
    /** {@code tokens} is an input [B, T, ...]. */
    static Sequences of(Problem p, String tokens) {
        var packed = p.has("cu_seqlens");
        var starts = packed ? p.ints("cu_seqlens") : null;
        var count = packed ? starts.length - 1 : p.size(tokens, 0);
        var begin = new int[count];
        var end = new int[count];
        var own = new int[count];
        for (var i = 0; i < count; i++) {
            begin[i] = packed ? starts[i] : i * p.size(tokens, 1);
            end[i] = packed ? starts[i + 1] : (i + 1) * p.size(tokens, 1);
            own[i] = i;
        }
        var pooled = p.has("state_read_index");
        return new Sequences(count, begin, end, pooled ? p.ints("state_read_index") : own,
                pooled ? p.ints("state_write_index") : own);
    }

    int length(int sequence) {
        return end[sequence] - begin[sequence];
    }

    boolean skipped(int sequence) {
        return read[sequence] < 0 || write[sequence] < 0;
    }
}
