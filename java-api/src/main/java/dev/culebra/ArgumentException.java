package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * An argument that contradicts the contract: absent, of a wrong shape, element type, stride, alignment, device or
 * range.
 */
public final class ArgumentException extends CulebraException {
    private static final long serialVersionUID = 1L;

    ArgumentException(Status status, @Nullable String op, @Nullable Backend backend, String message) {
        super(status, op, backend, message);
    }
}
