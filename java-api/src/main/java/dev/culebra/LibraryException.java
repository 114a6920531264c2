package dev.culebra;

/**
 * The native library could not be loaded: the message lists every place that was tried, why each failed, and what to
 * do.
 */
public final class LibraryException extends CulebraException {
    private static final long serialVersionUID = 1L;

    LibraryException(RuntimeException cause) {
        super(Status.LIBRARY, null, null, String.valueOf(cause.getMessage()));
        initCause(cause);
    }
}
