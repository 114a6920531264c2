package dev.culebra.bindings;

/**
 * A native call that answered a status other than {@code CUL_OK}, with the text that the library gave for it. It is for
 * those who call the bindings themselves, tests and benchmarks: the API has exceptions of its own.
 */
public final class StatusException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final int status;

    StatusException(int status, String message) {
        super(message);
        this.status = status;
    }

    /** One of the {@code CUL_*} status constants, or a number that this build does not know. */
    public int status() {
        return status;
    }
}
