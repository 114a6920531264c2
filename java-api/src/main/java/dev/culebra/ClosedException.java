package dev.culebra;

import org.jspecify.annotations.Nullable;

/** Use of a tensor, stream, event, graph, scope or device after it was closed. */
public final class ClosedException extends CulebraException {
    private static final long serialVersionUID = 1L;

    ClosedException(@Nullable String op, @Nullable Backend backend, String message) {
        super(Status.CLOSED, op, backend, message);
    }
}
