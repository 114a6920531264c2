package dev.culebra.inference;

import java.util.Arrays;

/**
 * Text of ids that come one at a time. A character whose bytes are spread over several tokens comes out whole, with the
 * last of them: tokens are decoded together with those before, since a decoder may treat the first one apart.
 */
final class TextStream {
    private static final char REPLACEMENT = '\uFFFD';

    private final Tokenizer tokenizer;
    private int[] ids = new int[64];
    private int size;

    /** The tokens from {@code context} to {@code printed} are out, and are decoded again as context of the next. */
    private int context;

    private int printed;

    TextStream(Tokenizer tokenizer) {
        this.tokenizer = tokenizer;
    }

    /** The text that {@code id} completes; often a word, sometimes nothing. */
    String add(int id) {
        if (size == ids.length) {
            ids = Arrays.copyOf(ids, 2 * size);
        }
        ids[size++] = id;
        var before = decode(context, printed);
        var text = decode(context, size);
        if (text.length() <= before.length() || text.charAt(text.length() - 1) == REPLACEMENT) {
            return "";
        }
        context = printed;
        printed = size;
        return text.substring(before.length());
    }

    /** What is left when no more ids come: bytes that make no character are replaced. */
    String finish() {
        var before = decode(context, printed);
        var text = decode(context, size);
        context = size;
        printed = size;
        return text.length() > before.length() ? text.substring(before.length()) : "";
    }

    private String decode(int from, int to) {
        return tokenizer.decode(Arrays.copyOfRange(ids, from, to));
    }
}
