package dev.culebra.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class MainTest {
    @Test
    void helpAndVersion() {
        var help = Run.of("--help");
        assertEquals(0, help.code());
        for (var command : List.of("doctor", "ops", "verify", "explain", "bench", "generate", "neighborhood-bound")) {
            assertTrue(help.out().contains(command), help.out());
            assertEquals(0, Run.of(command, "--help").code());
        }
        assertEquals(0, Run.of("--version").code());
        assertTrue(Run.of("--version").out().startsWith("culebra "));
    }

    @Test
    void wrongUsageIsTwo() {
        assertEquals(2, Run.of().code());
        assertEquals(2, Run.of("fly").code());
        assertEquals(2, Run.of("doctor", "--loud").code());
        assertEquals(2, Run.of("verify").code());
        assertEquals(2, Run.of("explain").code());
        assertEquals(2, Run.of("ops", "--json", "--markdown").code());
    }

    @Test
    void debugShowsWhereAnErrorComesFrom() {
        Run.of("verify", "no/such/folder").assertError("no/such/folder");
        var debug = Run.of("verify", "no/such/folder", "--debug");
        assertEquals(1, debug.code());
        assertTrue(debug.err().contains("\tat dev.culebra"), debug.err());
    }

    @Test
    void doctorFindsTheLibraryAndTheCpu() throws IOException {
        var text = Run.of("doctor");
        assertEquals(0, text.code(), text.err());
        assertTrue(text.out().contains("cpu:0"), text.out());
        var report = Run.object(Run.of("doctor", "--json").out());
        var library = (Map<?, ?>) report.get("library");
        assertEquals(true, library.get("usable"));
        var backends = Run.objects(report.get("backends"));
        assertEquals(List.of("cpu", "cuda", "simt"), backends.stream().map(backend -> backend.get("backend")).toList());
        for (var backend : backends) {
            var devices = Run.objects(backend.get("devices"));
            assertEquals(!devices.isEmpty(), backend.get("available"));
            // What is missing comes with a reason and something to do.
            assertEquals(devices.isEmpty(), !"".equals(backend.get("reason")));
            assertEquals(devices.isEmpty(), !"".equals(backend.get("remedy")));
        }
        assertEquals(true, backends.getFirst().get("available"));
    }

    /** In a process of its own: a library is loaded once. */
    @Test
    void doctorWithoutALibrary() throws IOException, InterruptedException {
        var result = process("-Dculebra.library=/no/such/libculebra.so", "doctor");
        assertEquals(1, result.code(), result.out());
        assertTrue(result.out().contains("Java") && result.out().contains("/no/such/libculebra.so"), result.out());
        var json = process("-Dculebra.library=/no/such/libculebra.so", "doctor", "--json");
        assertEquals(1, json.code());
        var library = (Map<?, ?>) Run.object(json.out()).get("library");
        assertEquals(false, library.get("usable"));
        assertTrue(library.get("failure").toString().contains("/no/such/libculebra.so"));
        var verify = process("-Dculebra.library=/no/such/libculebra.so", "verify", Run.CASES.toString());
        verify.assertError("/no/such/libculebra.so");
        var version = process("-Dculebra.library=/no/such/libculebra.so", "--version");
        assertEquals(0, version.code(), version.err());
    }

    private static Run process(String property, String... args) throws IOException, InterruptedException {
        var command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java", property,
                "--enable-native-access=dev.culebra.bindings",
                "--module-path", System.getProperty("jdk.module.path"), "--add-modules", "ALL-MODULE-PATH",
                "-m", "dev.culebra.cli/dev.culebra.cli.Main"));
        command.addAll(List.of(args));
        var process = new ProcessBuilder(command).start();
        var out = new String(process.getInputStream().readAllBytes());
        var err = new String(process.getErrorStream().readAllBytes());
        return new Run(process.waitFor(), out, err);
    }

    @Test
    void neighborhoodsHaveABound() {
        var blocks = Run.of("neighborhood-bound", "--size", "32768", "--window", "2048", "--stride", "2048");
        assertEquals(0, blocks.code(), blocks.err());
        assertTrue(blocks.out().contains("4096 of 65536 pairs of tiles") && blocks.out().contains("16.00"), blocks.out());
        var video = Run.of("neighborhood-bound", "--size", "30x48x80", "--window", "18x24x24", "--stride", "16x8x8",
                "--query-tile", "2x8x8", "--key-tile", "2x8x8", "--causal", "truexfalsexfalse");
        assertEquals(0, video.code(), video.err());
        Run.of("neighborhood-bound", "--size", "64", "--window", "65").assertError("window 65", "length 64");
        assertEquals(2, Run.of("neighborhood-bound", "--size", "64x64", "--window", "8").code());
        assertEquals(2, Run.of("neighborhood-bound", "--size", "big", "--window", "8").code());
    }

    @Test
    void opsAreListed() throws IOException {
        assertTrue(Run.of("ops").out().lines().anyMatch(line -> line.startsWith("w4a16_gemm ")));
        var ops = Run.objects(Run.object(Run.of("ops", "--json").out()).get("ops"));
        var product = ops.stream().filter(op -> op.get("op").equals("w4a16_gemm")).findFirst().orElseThrow();
        assertEquals("gemm", product.get("family"));
        assertEquals(true, ((Map<?, ?>) product.get("backends")).get("cpu"));
        assertEquals(List.of("f16", "bf16"), product.get("dtypes"));
        var markdown = Run.of("ops", "--markdown").out().lines().toList();
        assertEquals("| operator | family | cpu | simt | cuda | dtypes |", markdown.getFirst());
        assertEquals(ops.size() + 2, markdown.size());
    }

    @Test
    void benchRefusesAnEmulatedGpu() {
        Run.of("bench", "--backend", "gpu").assertError("there is no backend \"gpu\"");
    }
}
