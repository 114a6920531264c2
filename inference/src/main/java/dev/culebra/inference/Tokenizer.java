package dev.culebra.inference;

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/** The {@code tokenizer.json} of a model: text to token ids and back. Needs no network. Safe for use by several threads. */
public final class Tokenizer implements AutoCloseable {
    static {
        // The library would otherwise look for a cloud machine's metadata, and ask the network for files that it has.
        System.setProperty("ai.djl.offline", System.getProperty("ai.djl.offline", "true"));
        // Beside a GPU it would otherwise want a build for it, which its jar does not hold.
        System.setProperty("RUST_FLAVOR", System.getProperty("RUST_FLAVOR", "cpu"));
    }

    /** How deep the native library's parser nests is 128. */
    private static final int DEEPEST = 100;

    private final HuggingFaceTokenizer tokenizer;

    private Tokenizer(HuggingFaceTokenizer tokenizer) {
        this.tokenizer = tokenizer;
    }

    /**
     * Reads {@code tokenizer.json}.
     *
     * @throws ModelException if it is missing or no tokenizer
     */
    public static Tokenizer load(Path directory) {
        var file = directory.resolve("tokenizer.json");
        if (!Files.isRegularFile(file)) {
            throw new ModelException(file + ": no such file");
        }
        JsonObject.check(file, DEEPEST);  // the native library ends the process on some that are none
        var options = Map.of("addSpecialTokens", "true", "truncation", "false", "padding", "false");
        try (var input = Files.newInputStream(file)) {
            return new Tokenizer(HuggingFaceTokenizer.newInstance(input, options));
        } catch (IOException | RuntimeException e) {
            throw new ModelException(file + ": no tokenizer can be made of it: " + e.getMessage(), e);
        }
    }

    /** The ids of a text, with the special tokens that the model expects around one. */
    public int[] encode(String text) {
        return toInts(tokenizer.encode(text).getIds());
    }

    /** The text of ids, special tokens left out. */
    public String decode(int... ids) {
        var longs = new long[ids.length];
        for (var i = 0; i < ids.length; i++) {
            longs[i] = ids[i];
        }
        return tokenizer.decode(longs, true);
    }

    private static int[] toInts(long[] ids) {
        var ints = new int[ids.length];
        for (var i = 0; i < ids.length; i++) {
            ints[i] = Math.toIntExact(ids[i]);
        }
        return ints;
    }

    /** Frees the native tokenizer. */
    @Override
    public void close() {
        tokenizer.close();
    }
}
