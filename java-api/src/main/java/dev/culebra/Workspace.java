package dev.culebra;

import java.lang.foreign.MemorySegment;

/** Scratch memory of operators: a stream's, or what a graph took along. Belongs to the owner of whose it is. */
final class Workspace {
    MemorySegment memory = MemorySegment.NULL;
    long bytes;

    void set(MemorySegment newMemory, long newBytes) {
        memory = newMemory;
        bytes = newBytes;
    }

    void exchange(Workspace other) {
        var hadMemory = memory;
        var hadBytes = bytes;
        set(other.memory, other.bytes);
        other.set(hadMemory, hadBytes);
    }
}
