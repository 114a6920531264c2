package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.stream.Stream;

/** The driver library behind simt's modules ({@code tests/native/fake_driver}), which lies beside libculebra. */
final class TestDriver {
    private TestDriver() {}

    /** The backends that have modules here: simt through the test driver, cuda through its own. */
    static Stream<String> backends() {
        return Backends.all().filter(backend -> !backend.equals("cpu"));
    }

    static void use() {
        Natives.load();
        var library = Path.of(System.getProperty("culebra.library")).resolveSibling("libculebra_fake_driver.so");
        try (var arena = Arena.ofConfined()) {
            var status = culebra_h.cul_testing_use_driver(arena.allocateFrom(library.toString()));
            assertEquals(culebra_h.CUL_OK(), status, Native::lastError);
        }
        log();
    }

    static void remove() {
        assertEquals(culebra_h.CUL_OK(), culebra_h.cul_testing_use_driver(MemorySegment.NULL));
    }

    /** The calls since this was last asked, a line each. */
    static String log() {
        return culebra_h.cul_testing_driver_log().getString(0);
    }

    /** A file of the repository. */
    static Path file(String path) {
        return Path.of(System.getProperty("basedir"), "..", path).normalize();
    }
}
