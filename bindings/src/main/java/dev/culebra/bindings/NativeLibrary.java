package dev.culebra.bindings;

import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/**
 * Finds and loads libculebra, once per class loader. In order:
 * <ol>
 * <li>the file that the system property {@code culebra.library} names; whoever names a file gets that one or an error;
 * <li>the class path resource {@code META-INF/native/<os>-<arch>/}, extracted by {@link NativeCache};
 * <li>{@code java.library.path} and the runtime's own library directory.
 * </ol>
 * The generated bindings look their symbols up among the libraries of their class loader, so {@link #load} comes before
 * the first call of any of them.
 */
public final class NativeLibrary {
    /** The property that names the library file. */
    public static final String LIBRARY_PROPERTY = "culebra.library";

    private static final String NAME = "culebra";

    private static @Nullable String origin;

    private NativeLibrary() {}

    /**
     * Loads the library where that has not happened yet.
     *
     * @throws NativeLibraryException if no library was found, one could not be loaded, its ABI is another one than that
     *     of these bindings, or the JVM denies native access
     */
    public static synchronized void load() {
        if (origin == null) {
            var loaded = findAndLoad();
            checkAbi(loaded);
            origin = loaded;
        }
    }

    /** Where the library was loaded from, in words for people. Loads it first where that has not happened yet. */
    public static synchronized String origin() {
        load();
        return origin;
    }

    /** {@code <os>-<arch>} as resources name it, {@code linux-x86_64} for one. */
    static String platform() {
        var os = System.getProperty("os.name").toLowerCase(Locale.ROOT).replaceAll("[^a-z0-9]", "");
        var arch = System.getProperty("os.arch");
        return os + "-" + (arch.equals("amd64") ? "x86_64" : arch);
    }

    private static String findAndLoad() {
        var named = System.getProperty(LIBRARY_PROPERTY);
        var failures = new ArrayList<String>();
        try {
            if (named != null) {
                var file = Path.of(named).toAbsolutePath();
                if (tryLoad(file, "-D" + LIBRARY_PROPERTY + "=" + named, failures)) {
                    return file.toString();
                }
            } else {
                var extracted = NativeCache.extract(System.mapLibraryName(NAME), failures);
                if (extracted != null && tryLoad(extracted, extracted.toString(), failures)) {
                    return extracted + ", extracted from the class path";
                }
                try {
                    System.loadLibrary(NAME);
                    return System.mapLibraryName(NAME) + " from java.library.path";
                } catch (UnsatisfiedLinkError e) {
                    failures.add("java.library.path: " + e.getMessage());
                }
            }
        } catch (IllegalCallerException e) {
            throw new NativeLibraryException(accessDenied(e));
        }
        throw new NativeLibraryException(notLoaded(failures));
    }

    private static boolean tryLoad(Path file, String place, List<String> failures) {
        if (!Files.isRegularFile(file)) {
            failures.add(place + ": no such file");
            return false;
        }
        try {
            System.load(file.toString());
            return true;
        } catch (UnsatisfiedLinkError e) {
            failures.add(place + ": " + e.getMessage());
            return false;
        }
    }

    private static void checkAbi(String loaded) {
        if (SymbolLookup.loaderLookup().find("cul_abi_version").isEmpty()) {
            throw new NativeLibraryException(loaded + " is not libculebra: it has no function cul_abi_version.");
        }
        checkAbi(culebra_h.CUL_ABI_VERSION(), culebra_h.cul_abi_version(), loaded);
    }

    static void checkAbi(int expected, int found, String loaded) {
        if (expected != found) {
            throw new NativeLibraryException(loaded + " has ABI version " + Integer.toUnsignedString(found)
                    + ", but these bindings need version " + Integer.toUnsignedString(expected)
                    + ". Use the library and the jars of one build.");
        }
    }

    private static String notLoaded(List<String> failures) {
        return "The native library of Culebra could not be loaded on " + platform() + ". Tried:\n  "
                + String.join("\n  ", failures) + "\nPut the jar with the natives for " + platform()
                + " on the class path, or name a built library with -D" + LIBRARY_PROPERTY + "=FILE.";
    }

    private static String accessDenied(IllegalCallerException denied) {
        var module = NativeLibrary.class.getModule();
        return "The JVM denies Culebra native access (" + denied.getMessage() + "). Start java with --enable-native-access="
                + (module.isNamed() ? module.getName() : "ALL-UNNAMED");
    }
}
