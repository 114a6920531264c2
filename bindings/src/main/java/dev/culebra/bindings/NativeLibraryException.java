package dev.culebra.bindings;

/** The native library could not be loaded: the message lists every place that was tried, why each failed, and what to do. */
public final class NativeLibraryException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    NativeLibraryException(String message) {
        super(message);
    }
}
