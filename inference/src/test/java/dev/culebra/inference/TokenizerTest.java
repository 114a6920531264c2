package dev.culebra.inference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TokenizerTest {
    private static final Path DIRECTORY = Golden.SAMPLES.resolve("bf16");

    @Test
    void encodesAndDecodes() {
        try (var tokenizer = Tokenizer.load(DIRECTORY)) {
            assertArrayEquals(new int[] {41, 78, 259, 1789, 1242}, tokenizer.encode("In the beginning"));
            assertEquals("In the beginning", tokenizer.decode(41, 78, 259, 1789, 1242));
            assertEquals(0, tokenizer.encode("").length);
        }
    }

    @Test
    void aStreamNeverShowsHalfACharacter() {
        var text = "Selah \u2603 \uD83D\uDE00, caf\u00e9 \u05d0\u05d1";
        try (var tokenizer = Tokenizer.load(DIRECTORY)) {
            var stream = new TextStream(tokenizer);
            var pieces = new ArrayList<String>();
            for (var id : tokenizer.encode(text)) {
                pieces.add(stream.add(id));
            }
            pieces.add(stream.finish());
            assertEquals(text, String.join("", pieces));
            for (var piece : pieces) {
                assertFalse(piece.indexOf('\uFFFD') >= 0, "half a character in \"" + piece + "\"");
                assertTrue(piece.isEmpty() || !Character.isLowSurrogate(piece.charAt(0)));
            }
            assertTrue(pieces.size() > text.length(), "the emoji should be spread over several tokens");
        }
    }

    @Test
    void whatNeverBecomesACharacterComesOutInTheEnd() {
        try (var tokenizer = Tokenizer.load(DIRECTORY)) {
            var stream = new TextStream(tokenizer);
            var ids = tokenizer.encode("\uD83D\uDE00");
            var text = new StringBuilder();
            for (var i = 0; i + 1 < ids.length; i++) {
                text.append(stream.add(ids[i]));
            }
            assertEquals("", text.toString());
            assertFalse(stream.finish().isEmpty());
            assertEquals("", stream.finish());
        }
    }

    @Test
    void aBadFileIsNamed(@TempDir Path directory) throws Exception {
        var missing = assertThrows(ModelException.class, () -> Tokenizer.load(directory));
        assertTrue(missing.getMessage().contains("tokenizer.json: no such file"), missing.getMessage());
        Files.writeString(directory.resolve("tokenizer.json"), "{\"version\": ");
        var broken = assertThrows(ModelException.class, () -> Tokenizer.load(directory));
        assertTrue(broken.getMessage().contains("tokenizer.json"), broken.getMessage());
        // On this one the native library would end the process.
        var sample = Files.readString(DIRECTORY.resolve("tokenizer.json"));
        var deep = sample.replaceFirst("(\"decoder\": *\\{)", "$1 \"x\": " + "[".repeat(200) + "]".repeat(200) + ",");
        assertTrue(deep.length() > sample.length());
        Files.writeString(directory.resolve("tokenizer.json"), deep);
        broken = assertThrows(ModelException.class, () -> Tokenizer.load(directory));
        assertTrue(broken.getMessage().contains("tokenizer.json: not JSON"), broken.getMessage());
    }
}
