package dev.culebra;

/** What a list of keys names them by. */
public enum KeyIndex {
    /** The position in the sequence. */
    POSITION,
    /** page * page size + offset, the place in a paged cache. */
    SLOT
}
