package dev.culebra;

import org.jspecify.annotations.Nullable;

/** Two threads in one {@link Stream} at once. Give each thread its own stream, or take turns. */
public final class ConcurrentUseException extends CulebraException {
    private static final long serialVersionUID = 1L;

    ConcurrentUseException(@Nullable String op, @Nullable Backend backend, String message) {
        super(Status.BUSY, op, backend, message);
    }
}
