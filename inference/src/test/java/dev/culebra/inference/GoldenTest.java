package dev.culebra.inference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.Device;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.AfterParameterizedClassInvocation;
import org.junit.jupiter.params.BeforeParameterizedClassInvocation;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.ValueSource;

/** The sample checkpoints on cpu against what the reference computed from the same weights. */
@ParameterizedClass
@ValueSource(strings = {"bf16", "gptq-int4"})
class GoldenTest {
    /** A smaller gap between the two best logits leaves the choice to rounding. */
    private static final double CLEAR_MARGIN = 0.05;

    private static Golden golden;
    private static Device device;
    private static Qwen3NextModel model;
    private static Tokenizer tokenizer;

    @Parameter
    String checkpoint;

    @BeforeParameterizedClassInvocation
    static void load(String checkpoint) throws Exception {
        golden = Golden.read(checkpoint);
        device = Device.open("cpu");
        model = Qwen3NextModel.load(device, Golden.SAMPLES.resolve(checkpoint), LoadProgress.NONE);
        tokenizer = Tokenizer.load(Golden.SAMPLES.resolve(checkpoint));
    }

    @AfterParameterizedClassInvocation
    static void closeAndFindNothingLeft() {
        tokenizer.close();
        model.close();
        var memory = device.memory().statistics();
        assertEquals(0, memory.usedBytes(), "bytes of device memory left");
        assertEquals(0, memory.liveAllocations());
        assertEquals(0, memory.hostBytes());
        device.close();
    }

    private Sequence sequence(int capacity) {
        return new Sequence(model, capacity, Sampling.GREEDY);
    }

    @Test
    void tokenizesThePrompts() {
        for (var text : golden.texts()) {
            assertArrayEquals(text.promptIds(), tokenizer.encode(text.prompt()));
            assertEquals(text.greedyText().replace("<|endoftext|>", ""), tokenizer.decode(text.greedyIds()));
        }
    }

    @Test
    void choosesTheGoldenTokenBehindEveryGoldenPrefix() {
        for (var text : golden.texts()) {
            var prompt = text.promptIds().length;
            try (var sequence = sequence(text.greedyIds().length)) {
                var logits = sequence.logits(text.greedyIds());
                for (var pair : text.top8()) {
                    assertEquals(pair[1], logits[prompt - 1][(int) pair[0]], 0.02, text.prompt() + ": logit of " + pair[0]);
                }
                for (var step = 0; step < text.margins().length; step++) {
                    if (text.margins()[step] > CLEAR_MARGIN) {
                        assertEquals(text.greedyIds()[prompt + step], argmax(logits[prompt + step - 1]),
                                text.prompt() + ": step " + step + ", margin " + text.margins()[step]);
                    }
                }
            }
        }
    }

    @Test
    void writesTheGoldenText() {
        var text = golden.texts().getFirst();
        var streamed = new StringBuilder();
        var options = new GenerationOptions(text.greedyIds().length - text.promptIds().length, Sampling.GREEDY);
        var generation = new Generator(model, tokenizer).generate(text.prompt(), options, streamed::append);
        assertEquals(text.greedyText(), text.prompt() + generation.text());
        assertEquals(generation.text(), streamed.toString());
        assertArrayEquals(text.promptIds(), generation.promptIds());
        assertEquals(Generation.Stop.MAX_TOKENS, generation.stop());
        assertTrue(generation.prefillTokensPerSecond() > 0 && generation.decodeTokensPerSecond() > 0);
    }

    @Test
    void givesTheGoldenLogProbability() {
        var ids = golden.perplexityIds();
        try (var sequence = sequence(ids.length)) {
            var logits = sequence.logits(ids);
            var sum = 0.0;
            for (var i = 1; i < ids.length; i++) {
                sum += logprob(logits[i - 1], ids[i]);
            }
            assertEquals(golden.meanLogprob(), sum / (ids.length - 1), 2e-3);
        }
    }

    @Test
    void prefillInPartsAndDecodingGiveWhatOnePrefillGives() {
        var ids = Arrays.copyOf(golden.perplexityIds(), 96);
        float[][] whole;
        try (var sequence = sequence(ids.length)) {
            whole = sequence.logits(ids);
        }
        try (var sequence = sequence(ids.length)) {
            var parts = new float[ids.length][];
            int[] cuts = {0, 1, 3, 40, 41, 96};
            for (var i = 0; i + 1 < cuts.length; i++) {
                System.arraycopy(sequence.logits(Arrays.copyOfRange(ids, cuts[i], cuts[i + 1])), 0, parts, cuts[i], cuts[i + 1] - cuts[i]);
            }
            for (var i = 0; i < ids.length; i++) {
                assertArrayEquals(whole[i], parts[i], 0.05f, "logits behind token " + i);
            }
        }
        for (var text : golden.texts()) {
            var prompt = text.promptIds().length;
            try (var decoding = sequence(text.greedyIds().length); var reading = sequence(text.greedyIds().length)) {
                var written = text.greedyIds().clone();
                written[prompt] = decoding.prefill(text.promptIds());
                for (var i = prompt + 1; i < written.length; i++) {
                    written[i] = decoding.next();
                }
                var logits = reading.logits(written);
                for (var i = prompt; i < written.length; i++) {
                    var best = argmax(logits[i - 1]);
                    if (logits[i - 1][best] - logits[i - 1][written[i]] > 0.01) {
                        assertEquals(best, written[i], text.prompt() + ": token " + i);
                    }
                }
            }
        }
    }

    @Test
    void aStepAllocatesNothingOnTheDevice() {
        try (var sequence = sequence(64)) {
            sequence.prefill(golden.texts().getFirst().promptIds());
            sequence.next();
            var before = device.memory().statistics();
            for (var i = 0; i < 16; i++) {
                sequence.next();
            }
            var after = device.memory().statistics();
            assertEquals(before.allocations(), after.allocations());
            assertEquals(before.usedBytes(), after.usedBytes());
        }
    }

    @Test
    void drawsTheSameTextFromTheSameSeedAlone() {
        var generator = new Generator(model, tokenizer);
        var first = draw(generator, 7);
        assertArrayEquals(first, draw(generator, 7));
        assertTrue(!Arrays.equals(first, draw(generator, 8)), "two seeds, one text");
    }

    private static int[] draw(Generator generator, long seed) {
        var options = new GenerationOptions(24, Sampling.GREEDY.withTemperature(1).withSeed(seed));
        return generator.generate("And it came to pass", options, piece -> {}).ids();
    }

    /** Steps called, prepared and captured, with reading in between: the same tokens. */
    @Test
    void everyWayOfQueueingWritesTheSame() {
        var ids = golden.texts().getFirst().greedyIds();
        var prompt = Arrays.copyOf(ids, golden.texts().getFirst().promptIds().length);
        var written = new ArrayList<List<Integer>>();
        for (var queueing : Sequence.Queueing.values()) {
            var launches = device.counters().graphLaunches();
            var runs = device.counters().preparedRuns();
            try (var sequence = new Sequence(model, 64, Sampling.GREEDY.withTemperature(0.8f), queueing)) {
                var tokens = new ArrayList<Integer>();
                tokens.add(sequence.prefill(prompt));
                for (var step = 0; step < 6; step++) {
                    tokens.add(sequence.next());
                }
                tokens.add(sequence.prefill(7, 8, 9));  // other buffers and another place: the recorded step goes on from there
                for (var step = 0; step < 6; step++) {
                    tokens.add(sequence.next());
                }
                written.add(tokens);
                assertTrue(sequence.queueNanos() > 0);
            }
            assertEquals(queueing == Sequence.Queueing.GRAPH ? 11 : 0, device.counters().graphLaunches() - launches);
            assertEquals(queueing == Sequence.Queueing.PREPARED ? 12 : 0, device.counters().preparedRuns() - runs);
        }
        assertEquals(written.get(0), written.get(1));
        assertEquals(written.get(0), written.get(2));
    }

    @Test
    void aClearedSequenceBeginsAnew() {
        var prompt = golden.texts().getFirst().promptIds();
        try (var sequence = sequence(64)) {
            var first = sequence.prefill(prompt);
            var second = sequence.next();
            sequence.clear();
            assertEquals(first, sequence.prefill(prompt));
            assertEquals(second, sequence.next());
        }
    }

    private static int argmax(float... logits) {
        var best = 0;
        for (var i = 1; i < logits.length; i++) {
            if (logits[i] > logits[best]) {
                best = i;
            }
        }
        return best;
    }

    private static double logprob(float[] logits, int id) {
        double max = logits[argmax(logits)];
        var sum = 0.0;
        for (var logit : logits) {
            sum += Math.exp(logit - max);
        }
        return logits[id] - max - Math.log(sum);
    }
}
