package dev.culebra;

/** Something that is given back to the native library once no stream uses it any more. */
interface Disposal {
    /**
     * Gives it back in the order of the only stream that used it, if that is possible.
     *
     * @return false if it can only be given back at once
     */
    boolean queue(Stream stream);

    /**
     * Gives it back at once: no stream uses it. Reports failures to the log; there is nobody to catch them. Runs no code of
     * others, which is left to {@link dev.culebra.internal.GiveBacks}.
     */
    void now();
}
