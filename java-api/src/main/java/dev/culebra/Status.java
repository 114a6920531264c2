package dev.culebra;

/** Why a call was refused or failed. */
public enum Status {
    /** No failure. */
    OK,
    /** A required tensor is absent. */
    NULL_POINTER,
    /** Rank or extents contradict the operator's contract or each other. */
    SHAPE,
    /** An element type that an argument may not have, or two that must match and do not. */
    DTYPE,
    /** A stride that the operator does not take. */
    STRIDE,
    /** Memory that is not aligned as required. */
    ALIGNMENT,
    /** A tensor, stream or event of another device. */
    DEVICE,
    /** An attribute outside its documented set. */
    RANGE,
    /** Legal, but not here: backend, limit, exclusive arguments, state of the stream. */
    UNSUPPORTED,
    /** The workspace is too small and cannot grow now. */
    WORKSPACE,
    /** The device's architecture lacks what the operator needs. */
    ARCH,
    /** The device's memory, or the limit set on it, is exhausted. */
    OUT_OF_MEMORY,
    /** The device failed; it stays failed. */
    DEVICE_ERROR,
    /** A defect of the library. */
    INTERNAL,
    /** Use of something that was closed. The native library knows no such status. */
    CLOSED,
    /** Two threads in one stream at once. The native library knows no such status. */
    BUSY,
    /** The native library could not be loaded. */
    LIBRARY;

    private static final Status[] VALUES = values();

    /** The status that the C ABI calls {@code code}; {@link #INTERNAL} for a number that this build does not know. */
    static Status of(int code) {
        return code >= 0 && code <= INTERNAL.ordinal() ? VALUES[code] : INTERNAL;
    }
}
