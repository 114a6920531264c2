package dev.culebra.inference;

/** A model directory that cannot be used. The message names the file, the field or tensor, and the numbers. */
public final class ModelException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** With what is wrong. */
    public ModelException(String message) {
        super(message);
    }

    /** With what is wrong, and what it was found by. */
    public ModelException(String message, Throwable cause) {
        super(message, cause);
    }
}
