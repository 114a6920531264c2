package dev.culebra.conformance;

import dev.culebra.Status;

/** A call that Java's types exclude, so that it cannot be made: an unknown constant, an element type without a name. */
final class Refusal extends RuntimeException {
    private static final long serialVersionUID = 1L;

    final Status status;

    Refusal(Status status, String message) {
        super(message);
        this.status = status;
    }
}
