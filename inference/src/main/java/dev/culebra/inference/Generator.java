package dev.culebra.inference;

import java.util.Arrays;
import java.util.function.Consumer;

/** Continues texts. Can be used by several threads: each text has caches of its own. */
public final class Generator {
    private final Qwen3NextModel model;
    private final Tokenizer tokenizer;

    /** With a model and its tokenizer, which stay the caller's. */
    public Generator(Qwen3NextModel model, Tokenizer tokenizer) {
        this.model = model;
        this.tokenizer = tokenizer;
    }

    /**
     * Continues a text.
     *
     * @param sink hears the new text, in pieces of whole characters, as it comes
     * @throws IllegalArgumentException if the prompt has no tokens, or more than the model's context has room for
     * @throws dev.culebra.MemoryException if the caches do not fit into the device's memory
     */
    public Generation generate(String prompt, GenerationOptions options, Consumer<String> sink) {
        var promptIds = tokenizer.encode(prompt);
        var context = model.config().maxPositions();
        if (promptIds.length == 0) {
            throw new IllegalArgumentException("the prompt is empty: it has no tokens");
        }
        if (promptIds.length >= context) {
            throw new IllegalArgumentException("the prompt has " + promptIds.length + " tokens; the model's context of " + context
                    + " has room for a prompt of " + (context - 1));
        }
        // The last token is written but never read.
        var capacity = (int) Math.min(context, promptIds.length + options.maxTokens() - 1L);
        try (var sequence = new Sequence(model, capacity, options.sampling())) {
            return generate(sequence, promptIds, options.maxTokens(), sink);
        }
    }

    private Generation generate(Sequence sequence, int[] promptIds, int maxTokens, Consumer<String> sink) {
        var text = new StringBuilder();
        var pieces = new TextStream(tokenizer);
        var eosIds = model.config().eosIds();
        var ids = new int[Math.min(maxTokens, sequence.capacity() - promptIds.length + 1)];
        var count = 0;
        var begin = System.nanoTime();
        var id = sequence.prefill(promptIds);
        var first = System.nanoTime();
        while (true) {
            ids[count++] = id;
            emit(pieces.add(id), text, sink);
            if (eosIds.contains(id) || count == ids.length) {
                break;
            }
            id = sequence.next();
        }
        var end = System.nanoTime();
        emit(pieces.finish(), text, sink);
        var stop = eosIds.contains(id) ? Generation.Stop.END_OF_TEXT
                : count == maxTokens ? Generation.Stop.MAX_TOKENS : Generation.Stop.CONTEXT_FULL;
        return new Generation(text.toString(), Arrays.copyOf(ids, count), promptIds, stop,
                perSecond(promptIds.length, first - begin), perSecond(count - 1, end - first));
    }

    private static void emit(String piece, StringBuilder text, Consumer<String> sink) {
        if (!piece.isEmpty()) {
            text.append(piece);
            sink.accept(piece);
        }
    }

    private static double perSecond(int tokens, long nanos) {
        return tokens == 0 ? 0 : tokens * 1e9 / nanos;
    }
}
