package dev.culebra;

import org.jspecify.annotations.Nullable;

/** The device's memory, or the limit set on it, is exhausted. Nothing was allocated; the device is unharmed. */
public final class MemoryException extends CulebraException {
    private static final long serialVersionUID = 1L;

    MemoryException(@Nullable String op, @Nullable Backend backend, String message) {
        super(Status.OUT_OF_MEMORY, op, backend, message);
    }
}
