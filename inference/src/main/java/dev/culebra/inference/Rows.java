package dev.culebra.inference;

import java.util.List;

/**
 * Some rows of a matrix that a checkpoint names without {@code .weight} or {@code .qweight}.
 *
 * @param name of the matrix
 * @param count all of its rows
 * @param from the first one
 * @param to behind the last one
 */
record Rows(String name, long count, long from, long to) {
    /** All rows. */
    static Rows all(String name, long count) {
        return new Rows(name, count, 0, count);
    }

    long size() {
        return to - from;
    }

    /** How many rows there are in a list. */
    static long size(List<Rows> list) {
        return list.stream().mapToLong(Rows::size).sum();
    }
}
