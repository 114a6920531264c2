package dev.culebra;

import java.util.Arrays;

/**
 * The streams that may have queued work on a resource, and the number of owners that hold it open. A stream is marked
 * before the resource is looked at, and its owner closes the resource before it reads the marks: whoever comes second
 * sees the other.
 */
abstract class Uses implements Disposal {
    private static final Stream[] NONE = {};

    private volatile Stream[] streams = NONE;
    private int owners = 1;
    private volatile boolean released;

    /** Marks a use on {@code stream}, which the calling thread has entered. */
    final void mark(Stream stream) {
        for (var used : streams) {
            if (used == stream) {
                return;
            }
        }
        markFirst(stream);
    }

    private synchronized void markFirst(Stream stream) {
        var open = Arrays.stream(streams).filter(used -> !used.isClosed()).toArray(Stream[]::new);
        streams = Arrays.copyOf(open, open.length + 1);
        streams[open.length] = stream;
    }

    /** One owner more; false if the last one has let go. */
    final synchronized boolean retain() {
        if (released) {
            return false;
        }
        owners++;
        return true;
    }

    /** One owner less: true for the last one. */
    final synchronized boolean drop() {
        owners--;
        released = owners == 0;
        return released;
    }

    /** If the last owner has let go. */
    final boolean isReleased() {
        return released;
    }

    final synchronized Stream[] streams() {
        return streams;
    }
}
