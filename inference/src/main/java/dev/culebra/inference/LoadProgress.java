package dev.culebra.inference;

/** Hears how far the loading of a model is. */
@FunctionalInterface
public interface LoadProgress {
    /** Hears nothing. */
    LoadProgress NONE = (done, total) -> {};

    /** {@code done} of {@code total} bytes are on the device. */
    void update(long done, long total);
}
