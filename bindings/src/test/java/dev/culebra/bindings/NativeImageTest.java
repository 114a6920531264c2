package dev.culebra.bindings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.bindings.generated.cul_managed_deleter;
import dev.culebra.bindings.generated.culebra_h;
import java.io.File;
import java.lang.foreign.AddressLayout;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * GraalVM's native-image must know every signature that is linked at run time: the metadata beside the classes names those of
 * the bindings. {@code -Dculebra.update=true} writes it anew.
 */
class NativeImageTest {
    private static final Path METADATA = Path.of(System.getProperty("basedir"), "src/main/resources/META-INF/native-image",
            "dev.culebra/culebra-bindings/reachability-metadata.json");

    @Test
    void theMetadataNamesEverySignature() throws Exception {
        NativeLibrary.load();
        var expected = metadata();
        if (Boolean.getBoolean("culebra.update")) {
            Files.createDirectories(METADATA.getParent());
            Files.writeString(METADATA, expected);
        }
        assertEquals(expected, Files.readString(METADATA), METADATA + " is not of these bindings: run with -Dculebra.update=true");
    }

    private static String metadata() throws ReflectiveOperationException {
        var downcalls = new TreeSet<String>();
        for (var method : culebra_h.class.getMethods()) {
            if (method.getName().endsWith("$descriptor")) {
                downcalls.add(signature((FunctionDescriptor) method.invoke(null), false));
            }
        }
        // Those that Native links by hand, without the transition.
        downcalls.add(signature(culebra_h.cul_last_error$descriptor(), true));
        downcalls.add(signature(culebra_h.cul_last_workspace_bytes$descriptor(), true));
        downcalls.add(signature(cul_managed_deleter.descriptor(), false));
        var upcalls = new TreeSet<String>();
        upcalls.add(signature(cul_managed_deleter.descriptor(), false));
        return """
                {
                  "comment": "Written by NativeImageTest from the bindings",
                  "resources": [
                    {"glob": "META-INF/native/**"}
                  ],
                  "foreign": {
                    "downcalls": [
                %s
                    ],
                    "upcalls": [
                %s
                    ]
                  }
                }
                """.formatted(String.join(",\n", downcalls), String.join(",\n", upcalls));
    }

    private static String signature(FunctionDescriptor function, boolean critical) {
        var parameters = function.argumentLayouts().stream().map(NativeImageTest::type).map(type -> '"' + type + '"')
                .collect(Collectors.joining(", "));
        var result = function.returnLayout().map(NativeImageTest::type).orElse("void");
        return "      {\"returnType\": \"" + result + "\", \"parameterTypes\": [" + parameters + "]"
                + (critical ? ", \"options\": {\"critical\": {\"allowHeapAccess\": false}}" : "") + "}";
    }

    /** What GraalVM calls a type of the C ABI. */
    private static String type(MemoryLayout layout) {
        return switch (layout) {
            case AddressLayout ignored -> "void*";
            case ValueLayout.OfInt ignored -> "jint";
            case ValueLayout.OfLong ignored -> "jlong";
            case ValueLayout.OfDouble ignored -> "jdouble";
            case ValueLayout.OfFloat ignored -> "jfloat";
            default -> throw new AssertionError("a function takes or returns " + layout);
        };
    }

    /** Where GRAALVM_HOME names one: an image that loads the library. Elsewhere that is said, since nothing can be built. */
    @Test
    void anImageLoadsTheLibraryWhereGraalVmIsPresent(@TempDir Path directory) throws Exception {
        var home = System.getenv("GRAALVM_HOME");
        if (home == null) {
            System.out.println("GRAALVM_HOME is not set: no native image was built");
            return;
        }
        var image = directory.resolve("probe");
        var classes = Path.of(System.getProperty("basedir"), "target");
        var path = classes.resolve("classes") + File.pathSeparator + classes.resolve("test-classes");
        run("", Path.of(home, "bin", "native-image").toString(), "--no-fallback", "--enable-native-access=ALL-UNNAMED", "-cp", path,
                LoadProbe.class.getName(), "-o", image.toString());
        run("loaded", image.toString(), "-Dculebra.library=" + System.getProperty("culebra.library"));
    }

    private static void run(String expected, String... command) throws Exception {
        var process = new ProcessBuilder(command).redirectErrorStream(true).start();
        var output = new String(process.getInputStream().readAllBytes());
        assertTrue(process.waitFor(1, TimeUnit.MINUTES));
        assertEquals(0, process.exitValue(), output);
        assertTrue(output.contains(expected), output);
    }
}
