package dev.culebra.conformance;

import java.util.Locale;

/** What became of a case. */
public enum Verdict {
    /** Everything is as the case asks. */
    PASS,
    /** The operator's results, or its refusal, are not. */
    FAIL,
    /** The library, or its backend, lacks what the case asks for. */
    UNSUPPORTED,
    /** The case could not be run. */
    ERROR;

    /** {@code pass}, ... */
    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
