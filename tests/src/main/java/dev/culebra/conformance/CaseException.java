package dev.culebra.conformance;

/** A case that cannot be run: its file, or what the file says, is not what a case must be. */
public final class CaseException extends Exception {
    private static final long serialVersionUID = 1L;

    /** With what is wrong. */
    public CaseException(String message) {
        super(message);
    }

    CaseException(String message, Throwable cause) {
        super(message, cause);
    }
}
