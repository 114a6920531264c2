package dev.culebra.oracles;

import dev.culebra.RecurrenceOptions.StateLayout;

/** The states of sequences and heads, before, after and at checkpoints: each a matrix [columns, values] while it is worked on. */
final class States {
    private final Problem problem;
    private final Sequences sequences;
    private final int heads;
    private final int values;
    private final int columns;
    private final boolean valuesFirst;
    private final int every;
    private final double[] initial;
    private final double[] last;
    private final int[] firstCheckpoint;
    private final double[] checkpoints;

    States(Problem p, Sequences sequences, int heads, int values, int columns) {
        this.problem = p;
        this.sequences = sequences;
        this.heads = heads;
        this.values = values;
        this.columns = columns;
        valuesFirst = p.attributes().oneOf("state_layout", StateLayout.VK) == StateLayout.VK;
        every = p.attributes().integer("checkpoint_every", 0);
        initial = p.values("initial_state", sequences.count() * heads * values * columns, 0);
        last = initial.clone();
        firstCheckpoint = new int[sequences.count() + 1];
        for (var n = 0; n < sequences.count(); n++) {
            firstCheckpoint[n + 1] = firstCheckpoint[n] + (every > 0 ? sequences.length(n) / every : 0);
        }
        checkpoints = new double[firstCheckpoint[sequences.count()] * heads * values * columns];
    }

    double[] load(int sequence, int head) {
        var s = new double[columns * values];
        var base = (sequences.read()[sequence] * heads + head) * s.length;
        for (var i = 0; i < s.length; i++) {
            s[i] = initial[base + stored(i)];
        }
        return s;
    }

    void store(int sequence, int head, double[] s) {
        copy(s, last, sequences.write()[sequence], head);
    }

    /** What is kept, if anything, when {@code done} tokens of the sequence are. */
    void checkpoint(int sequence, int head, int done, double[] s) {
        if (every > 0 && done % every == 0) {
            copy(s, checkpoints, firstCheckpoint[sequence] + done / every - 1, head);
        }
    }

    private void copy(double[] s, double[] to, int row, int head) {
        var base = (row * heads + head) * s.length;
        for (var i = 0; i < s.length; i++) {
            to[base + stored(i)] = s[i];
        }
    }

    /** Where element i of [columns, values] is stored. */
    private int stored(int i) {
        return valuesFirst ? i % values * columns + i / values : i;
    }

    /** {@code middle} are the dimensions between the row and the matrix. */
    void finish(long... middle) {
        problem.out("final_state", last, shape(last.length, middle));
        if (every > 0) {
            problem.out("checkpoints", checkpoints, shape(checkpoints.length, middle));
        }
    }

    private long[] shape(int elements, long... middle) {
        var shape = new long[middle.length + 3];
        shape[0] = elements / (heads * values * columns);
        System.arraycopy(middle, 0, shape, 1, middle.length);
        shape[middle.length + 1] = valuesFirst ? values : columns;
        shape[middle.length + 2] = valuesFirst ? columns : values;
        return shape;
    }
}
