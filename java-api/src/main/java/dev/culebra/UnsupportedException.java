package dev.culebra;

import org.jspecify.annotations.Nullable;

/** A legal call that this backend, this device's architecture or the state of the stream does not allow. */
public final class UnsupportedException extends CulebraException {
    private static final long serialVersionUID = 1L;

    UnsupportedException(Status status, @Nullable String op, @Nullable Backend backend, String message) {
        super(status, op, backend, message);
    }
}
