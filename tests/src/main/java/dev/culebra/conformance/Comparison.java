package dev.culebra.conformance;

import org.jspecify.annotations.Nullable;

/**
 * An output beside its reference.
 *
 * @param check what was asked
 * @param value the metric's value; NaN where the positions of NaN and infinities already differ
 * @param fault what is wrong, as the rest of a sentence that begins with the output's name; null: nothing
 */
public record Comparison(Check check, double value, @Nullable String fault) {
    /** If it is what the check asks for. */
    public boolean passed() {
        return fault == null;
    }

    /** The worse of two. */
    Comparison or(Comparison other) {
        return !passed() ? this : !other.passed() || other.value > value ? other : this;
    }
}
