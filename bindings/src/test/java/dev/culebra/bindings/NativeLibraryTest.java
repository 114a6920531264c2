package dev.culebra.bindings;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Loading happens once in a JVM, so each way of it has one of its own. */
class NativeLibraryTest {
    private static final Path LIBRARY = Path.of(System.getProperty(NativeLibrary.LIBRARY_PROPERTY)).toAbsolutePath();

    @TempDir
    private Path folder;

    private Path cache;

    @BeforeEach
    void emptyCache() {
        cache = folder.resolve("cache");
    }

    @Test
    void thePropertyNamesTheFile() throws Exception {
        assertEquals("loaded " + LIBRARY, run("-Dculebra.library=" + LIBRARY));
    }

    @Test
    void aNamedFileThatIsMissingIsAnErrorEvenWhereAnotherWouldBeFound() throws Exception {
        var missing = folder.resolve("nowhere.so");
        var said = run("-Dculebra.library=" + missing, "-Djava.library.path=" + LIBRARY.getParent());
        assertContains(said, "failed ", "-Dculebra.library=" + missing + ": no such file", "name a built library with");
    }

    @Test
    void aFileThatIsNoLibraryIsAnErrorWithTheLoadersText() throws Exception {
        var text = Files.writeString(folder.resolve("libculebra.so"), "not a library, but text. ".repeat(100));
        assertContains(run("-Dculebra.library=" + text), "failed ", text.toString(), "invalid ELF header");
    }

    @Test
    void anotherLibraryIsNotTakenForOurs() throws Exception {
        var other = Path.of(System.getProperty("java.home"), "lib", System.mapLibraryName("prefs"));
        assertContains(run("-Dculebra.library=" + other), "failed ", other + " is not libculebra");
    }

    @Test
    void theClassPathResourceIsExtractedOnceAndKept() throws Exception {
        packageNatives();
        var first = run();
        assertContains(first, "loaded " + cache, "extracted from the class path");
        var file = cachedFiles().getFirst();
        var written = Files.getLastModifiedTime(file);
        assertEquals(first, run());
        assertEquals(List.of(file), cachedFiles());
        assertEquals(written, Files.getLastModifiedTime(file));
        assertEquals(-1, Files.mismatch(LIBRARY, file));
        assertEquals("rwx------", PosixFilePermissions.toString(
                Files.getPosixFilePermissions(file.getParent())));
    }

    @Test
    void anotherBuildIsExtractedBesideTheFirst() throws Exception {
        packageNatives();
        run();
        var padded = packageNatives();
        Files.write(padded, new byte[1], StandardOpenOption.APPEND);
        assertContains(run(), "loaded " + cache);
        assertEquals(2, cachedFiles().size());
    }

    @Test
    void processesThatStartAtOnceShareOneExtraction() throws Exception {
        packageNatives();
        var children = Stream.generate(() -> assertDoesNotThrow(() -> start())).limit(3).toList();
        for (var child : children) {
            assertContains(output(child), "loaded " + cache);
        }
        assertEquals(1, cachedFiles().size());
    }

    @Test
    void aCacheThatCannotBeWrittenIsNamedWithItsRemedy() throws Exception {
        packageNatives();
        Files.writeString(cache, "a file where the directory should be");
        assertContains(run("-Djava.library.path=" + folder), "failed ", "could not be extracted to " + cache,
                "-Dculebra.cache=DIR", "java.library.path: no culebra in java.library.path");
    }

    @Test
    void theLibraryPathComesLast() throws Exception {
        assertEquals("loaded libculebra.so from java.library.path", run("-Djava.library.path=" + LIBRARY.getParent()));
    }

    @Test
    void withoutALibraryEveryPlaceIsListed() throws Exception {
        assertContains(run("-Djava.library.path=" + folder), "failed ", NativeLibrary.platform(),
                "class path: no resource META-INF/native/" + NativeLibrary.platform() + "/libculebra.so",
                "java.library.path: no culebra in java.library.path: " + folder, "-Dculebra.library=FILE");
    }

    @Test
    void whereNativeAccessIsDeniedTheFlagIsNamed() throws Exception {
        var said = run("-Dculebra.library=" + LIBRARY, "--illegal-native-access=deny");
        assertContains(said, "failed ", "denies Culebra native access", "--enable-native-access=ALL-UNNAMED");
    }

    @Test
    void anotherAbiVersionIsAnError() {
        assertDoesNotThrow(() -> NativeLibrary.checkAbi(1, 1, "libculebra.so"));
        var thrown = assertThrows(NativeLibraryException.class, () -> NativeLibrary.checkAbi(1, 2, "libculebra.so"));
        assertEquals("libculebra.so has ABI version 2, but these bindings need version 1. "
                + "Use the library and the jars of one build.", thrown.getMessage());
    }

    /** Puts the library where a jar with natives has it; returns the file. */
    private Path packageNatives() throws IOException {
        var resources = Files.createDirectories(folder.resolve("natives/META-INF/native/" + NativeLibrary.platform()));
        return Files.copy(LIBRARY, resources.resolve("libculebra.so"),
                StandardCopyOption.REPLACE_EXISTING);
    }

    private List<Path> cachedFiles() throws IOException {
        try (var files = Files.walk(cache)) {
            return files.filter(Files::isRegularFile).toList();
        }
    }

    private String run(String... options) throws IOException, InterruptedException {
        return output(start(options));
    }

    private Process start(String... options) throws IOException {
        var command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-Dculebra.cache=" + cache));
        if (!List.of(options).contains("--illegal-native-access=deny")) {
            command.add("--enable-native-access=ALL-UNNAMED");
        }
        command.addAll(List.of(options));
        command.addAll(List.of("-cp", String.join(":", location(LoadProbe.class), location(NativeLibrary.class),
                folder.resolve("natives").toString()), LoadProbe.class.getName()));
        return new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
    }

    private static String output(Process child) throws IOException, InterruptedException {
        var said = new String(child.getInputStream().readAllBytes(), StandardCharsets.UTF_8).strip();
        assertEquals(0, child.waitFor(), said);
        return said;
    }

    private static String location(Class<?> type) {
        return Path.of(assertDoesNotThrow(() -> type.getProtectionDomain().getCodeSource().getLocation().toURI())).toString();
    }

    private static void assertContains(String text, String... parts) {
        for (var part : parts) {
            assertTrue(text.contains(part), () -> "\"" + part + "\" is not in:\n" + text);
        }
    }
}
