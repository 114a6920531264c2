package dev.culebra.inference;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** What the reference computed in float32 from a sample checkpoint; samples/README.md explains the fields. */
record Golden(List<Text> texts, int[] perplexityIds, double meanLogprob) {
    static final Path SAMPLES = Path.of("..", "samples", "kjv-hybrid-tiny");

    record Text(String prompt, int[] promptIds, int[] greedyIds, String greedyText, double[] margins, double[][] top8) {}

    static Golden read(String checkpoint) throws IOException {
        var texts = new ArrayList<Text>();
        var perplexityIds = new int[0];
        var meanLogprob = Double.NaN;
        var file = SAMPLES.resolve("golden-" + checkpoint + ".json");
        try (var json = new JsonFactory().createParser(Files.readAllBytes(file))) {
            json.nextToken();
            while (json.nextToken() == JsonToken.START_OBJECT) {
                String prompt = null;
                String greedyText = "";
                var promptIds = new int[0];
                var greedyIds = new int[0];
                var margins = new double[0];
                var top8 = new double[0][];
                for (var name = json.nextFieldName(); name != null; name = json.nextFieldName()) {
                    json.nextToken();
                    switch (name) {
                        case "prompt" -> prompt = json.getText();
                        case "greedy_text" -> greedyText = json.getText();
                        case "prompt_ids" -> promptIds = ints(json);
                        case "greedy_ids" -> greedyIds = ints(json);
                        case "top1_margin_per_step" -> margins = numbers(json);
                        case "last_logits_top8" -> top8 = pairs(json);
                        case "perplexity_ids" -> perplexityIds = ints(json);
                        case "mean_logprob" -> meanLogprob = json.getDoubleValue();
                        default -> throw new IOException(file + " has an unknown field " + name);
                    }
                }
                if (prompt != null) {
                    texts.add(new Text(prompt, promptIds, greedyIds, greedyText, margins, top8));
                }
            }
        }
        return new Golden(texts, perplexityIds, meanLogprob);
    }

    private static double[] numbers(JsonParser json) throws IOException {
        var numbers = new ArrayList<Double>();
        while (json.nextToken() != JsonToken.END_ARRAY) {
            numbers.add(json.getDoubleValue());
        }
        return numbers.stream().mapToDouble(Double::doubleValue).toArray();
    }

    private static int[] ints(JsonParser json) throws IOException {
        var numbers = numbers(json);
        var ints = new int[numbers.length];
        for (var i = 0; i < ints.length; i++) {
            ints[i] = (int) numbers[i];
        }
        return ints;
    }

    private static double[][] pairs(JsonParser json) throws IOException {
        var pairs = new ArrayList<double[]>();
        while (json.nextToken() != JsonToken.END_ARRAY) {
            pairs.add(numbers(json));
        }
        return pairs.toArray(double[][]::new);
    }
}
