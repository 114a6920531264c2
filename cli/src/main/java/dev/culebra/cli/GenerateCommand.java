package dev.culebra.cli;

import dev.culebra.Device;
import dev.culebra.inference.Generation;
import dev.culebra.inference.GenerationOptions;
import dev.culebra.inference.Generator;
import dev.culebra.inference.Qwen3NextModel;
import dev.culebra.inference.Sampling;
import dev.culebra.inference.Tokenizer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code generate}: continues a text with a model, as it comes. */
@Command(name = "generate", description = "Continue a text with a language model.", mixinStandardHelpOptions = true)
final class GenerateCommand implements Callable<Integer> {
    static {
        // The tokenizer logs through SLF4J, which would say that nobody listens.
        System.setProperty("slf4j.internal.verbosity", System.getProperty("slf4j.internal.verbosity", "ERROR"));
    }

    private static final String SAMPLE = "samples/kjv-hybrid-tiny/gptq-int4";

    /** Steps of the bar that shows how much of the weights is loaded. */
    private static final int PROGRESS_STEPS = 100;

    @Option(names = "--prompt", required = true, paramLabel = "TEXT", description = "The text to continue.")
    private String prompt = "";

    @Option(names = "--model", paramLabel = "DIR",
            description = "A Hugging Face directory: config.json, tokenizer.json and safetensors (default: the sample model).")
    private @Nullable Path model;

    @Option(names = "--max-tokens", paramLabel = "N", description = "Write at most N tokens (default: ${DEFAULT-VALUE}).")
    private int maxTokens = 128;

    @Option(names = "--temperature", paramLabel = "T",
            description = "0 takes the likeliest token, larger draws more freely (default: ${DEFAULT-VALUE}).")
    private float temperature;

    @Option(names = "--seed", paramLabel = "S", description = "Of the draws (default: ${DEFAULT-VALUE}).")
    private long seed;

    @Option(names = "--backend", paramLabel = "B", description = "cpu (default), cuda, simt, or one of several: cuda:1.")
    private String backend = "cpu";

    @Option(names = "--memory-limit", paramLabel = "BYTES", description = "Of the device's memory (default: none).")
    private long memoryLimit;

    @Option(names = "--json", description = "Print one JSON object when the text is complete.")
    private boolean json;

    @Spec
    private CommandSpec spec;

    @Override
    public Integer call() {
        var directory = model == null ? sample() : model;
        if (!Files.isDirectory(directory)) {
            throw new CommandException(directory + ": no such directory");
        }
        try {
            var options = new GenerationOptions(maxTokens, Sampling.GREEDY.withTemperature(temperature).withSeed(seed));
            generate(directory, options);
        } catch (IllegalArgumentException e) {
            throw new CommandException(String.valueOf(e.getMessage()));
        }
        return 0;
    }

    private static Path sample() {
        var home = System.getProperty("culebra.home");
        if (home == null) {
            throw new CommandException("there is no sample model without -Dculebra.home=DIR; name a model: --model DIR");
        }
        return Path.of(home).resolve(SAMPLE);
    }

    private void generate(Path directory, GenerationOptions options) {
        try (var device = Device.open(backend)) {
            device.memory().limit(memoryLimit);
            try (var loaded = load(device, directory); var tokenizer = Tokenizer.load(directory)) {
                var generator = new Generator(loaded, tokenizer);
                var out = spec.commandLine().getOut();
                if (json) {
                    out.println(json(device, generator.generate(prompt, options, piece -> {})));
                    return;
                }
                var shown = new StringBuilder(prompt);  // once the first piece tells that the model took it
                var generation = generator.generate(prompt, options, piece -> {
                    out.print(shown.append(piece));
                    out.flush();
                    shown.setLength(0);
                });
                out.println();
                spec.commandLine().getErr().printf(Locale.ROOT,
                        "%n%d tokens read at %.1f/s, %d written at %.1f/s on %s%n",
                        generation.promptIds().length, generation.prefillTokensPerSecond(), generation.ids().length,
                        generation.decodeTokensPerSecond(), device);
            }
        }
    }

    private Qwen3NextModel load(Device device, Path directory) {
        try (var progress = new Progress(spec.commandLine().getErr(), PROGRESS_STEPS)) {
            var shown = new int[1];
            return Qwen3NextModel.load(device, directory, (done, total) -> {
                while (shown[0] * total < done * PROGRESS_STEPS) {
                    progress.step("weights");
                    shown[0]++;
                }
            });
        }
    }

    private String json(Device device, Generation generation) {
        return JsonText.object(json -> {
            json.writeStringField("text", generation.text());
            json.writeFieldName("ids");
            json.writeArray(generation.ids(), 0, generation.ids().length);
            json.writeFieldName("prompt_ids");
            json.writeArray(generation.promptIds(), 0, generation.promptIds().length);
            json.writeNumberField("prefill_tokens_per_second", generation.prefillTokensPerSecond());
            json.writeNumberField("decode_tokens_per_second", generation.decodeTokensPerSecond());
            json.writeStringField("backend", device.backend().toString());
        });
    }
}
