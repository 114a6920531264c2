package dev.culebra.bindings;

import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;

/**
 * What jextract cannot write: the getters of a thread's last call without the transition to native state
 * ({@link Linker.Option#critical}; each reads one thread-local value), and statuses as exceptions. It needs the
 * library: {@link NativeLibrary#load} comes first, so that its failure arrives as what it is and not from an initializer.
 */
public final class Native {
    private static final MethodHandle LAST_ERROR = critical("cul_last_error", culebra_h.cul_last_error$descriptor());
    private static final MethodHandle LAST_PLAN = critical("cul_last_plan", culebra_h.cul_last_plan$descriptor());
    private static final MethodHandle LAST_WORKSPACE_BYTES =
            critical("cul_last_workspace_bytes", culebra_h.cul_last_workspace_bytes$descriptor());

    private Native() {}

    /**
     * Returns if {@code status} is {@code CUL_OK}. Belongs on the thread of the call, right behind it.
     *
     * @throws StatusException with the library's text for the failure otherwise
     */
    public static void check(int status) {
        if (status != 0) {
            throw failure(status);
        }
    }

    /** The exception for a status that is not {@code CUL_OK}, with the text of this thread's last failure. */
    public static StatusException failure(int status) {
        var text = lastError();
        return new StatusException(status, text.isEmpty() ? statusName(status) : text);
    }

    /** The text of this thread's last failure; empty if there was none. */
    public static String lastError() {
        try {
            return ((MemorySegment) LAST_ERROR.invokeExact()).getString(0);
        } catch (Throwable e) {
            throw impossible(e);
        }
    }

    /** How the operator that this thread last planned would run: design, tile, split and why; empty where it has but one way. */
    public static String lastPlan() {
        try {
            return ((MemorySegment) LAST_PLAN.invokeExact()).getString(0);
        } catch (Throwable e) {
            throw impossible(e);
        }
    }

    /** The workspace, in bytes, that this thread's last operator asked for or planned with. */
    public static long lastWorkspaceBytes() {
        try {
            return (long) LAST_WORKSPACE_BYTES.invokeExact();
        } catch (Throwable e) {
            throw impossible(e);
        }
    }

    /** {@code SHAPE} for {@code CUL_SHAPE}; {@code UNKNOWN} for a number that is no status. */
    public static String statusName(int status) {
        return culebra_h.cul_status_name(status).getString(0);
    }

    /** The {@code bytes} bytes of host memory at {@code address}, for as long as {@code arena} is open. */
    @SuppressWarnings("restricted") // size and lifetime are the caller's word
    public static MemorySegment memory(MemorySegment address, long bytes, Arena arena) {
        return address.reinterpret(bytes, arena, null);
    }

    /** The address of one of the library's functions, {@code cul_add} for one. */
    public static MemorySegment function(String name) {
        return SymbolLookup.loaderLookup().findOrThrow(name);
    }

    private static MethodHandle critical(String name, FunctionDescriptor descriptor) {
        return Linker.nativeLinker()
                .downcallHandle(SymbolLookup.loaderLookup().findOrThrow(name), descriptor, Linker.Option.critical(false));
    }

    /** The handles throw nothing checked: whatever arrives passes on unchanged. */
    private static RuntimeException impossible(Throwable thrown) {
        if (thrown instanceof Error error) {
            throw error;
        }
        if (thrown instanceof RuntimeException runtime) {
            return runtime;
        }
        return new IllegalStateException(thrown);
    }
}
