package dev.culebra;

import org.jspecify.annotations.Nullable;

/** A call that was refused or failed. The message names the operator, the operands and the dimensions. */
public class CulebraException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final Status status;
    private final @Nullable String op;
    private final @Nullable Backend backend;

    CulebraException(Status status, @Nullable String op, @Nullable Backend backend, String message) {
        super(message);
        this.status = status;
        this.op = op;
        this.backend = backend;
    }

    /** What kind of failure it is. */
    public Status status() {
        return status;
    }

    /** The operator's name as in {@code rms_norm}, or of the function that failed; null where there is none. */
    public @Nullable String op() {
        return op;
    }

    /** The backend that refused or failed; null where none is involved. */
    public @Nullable Backend backend() {
        return backend;
    }

    /** The exception of the class that belongs to {@code status}. */
    static CulebraException of(Status status, @Nullable String op, @Nullable Backend backend, String message) {
        return switch (status) {
            case NULL_POINTER, SHAPE, DTYPE, STRIDE, ALIGNMENT, DEVICE, RANGE ->
                new ArgumentException(status, op, backend, message);
            case UNSUPPORTED, ARCH, WORKSPACE -> new UnsupportedException(status, op, backend, message);
            case OUT_OF_MEMORY -> new MemoryException(op, backend, message);
            case DEVICE_ERROR -> new DeviceFailedException(op, backend, message);
            case CLOSED -> new ClosedException(op, backend, message);
            case BUSY -> new ConcurrentUseException(op, backend, message);
            default -> new CulebraException(status, op, backend, message);
        };
    }
}
