package dev.culebra;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.NativeLibrary;
import dev.culebra.bindings.NativeLibraryException;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/** The edge to the bindings: loading, statuses as exceptions, out-parameters. */
final class Natives {
    private Natives() {}

    /** Loads the library where that has not happened yet; everything native comes after it. */
    static void load() {
        try {
            NativeLibrary.load();
        } catch (NativeLibraryException e) {
            throw new LibraryException(e);
        }
    }

    /** Throws the exception for {@code status} unless it is OK. On the thread of the call, right behind it. */
    static void check(int status, @Nullable String op, @Nullable Backend backend) {
        if (status != culebra_h.CUL_OK()) {
            throw failure(status, op, backend);
        }
    }

    static CulebraException failure(int status, @Nullable String op, @Nullable Backend backend) {
        var text = Native.lastError();
        return CulebraException.of(Status.of(status), op, backend, text.isEmpty() ? Native.statusName(status) : text);
    }

    /** A native function whose last argument is the address of its result. */
    interface Out {
        int call(MemorySegment out);
    }

    /** The pointer that {@code function} hands out. */
    static MemorySegment pointer(@Nullable Backend backend, String name, Out function) {
        try (var arena = Arena.ofConfined()) {
            var out = arena.allocate(ValueLayout.ADDRESS);
            check(function.call(out), name, backend);
            return out.get(ValueLayout.ADDRESS, 0);
        }
    }
}
