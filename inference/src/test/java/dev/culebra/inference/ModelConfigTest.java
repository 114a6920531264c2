package dev.culebra.inference;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ModelConfigTest {
    @TempDir
    Path directory;

    private ModelConfig read(String pattern, String replacement) throws IOException {
        var json = Files.readString(Golden.SAMPLES.resolve("gptq-int4").resolve("config.json"));
        var changed = json.replaceFirst(pattern, replacement);
        assertTrue(pattern.isEmpty() || !changed.equals(json), pattern + " matches nothing");
        Files.writeString(directory.resolve("config.json"), changed);
        return ModelConfig.read(directory);
    }

    @Test
    void readsTheSample() throws IOException {
        var config = read("", "");
        assertEquals(256, config.hiddenSize());
        assertEquals(4, config.layers().size());
        assertEquals(ModelConfig.Mixer.FULL_ATTENTION, config.layers().get(3));
        assertEquals(new ModelConfig.Attention(4, 2, 64, 16, 10_000), config.attention());
        assertEquals(new ModelConfig.Delta(2, 4, 64, 64, 4), config.delta());
        assertEquals(new ModelConfig.Experts(8, 2, 128, 256, true), config.experts());
        assertEquals(new ModelConfig.Quantization(128, false), config.quantization());
        assertEquals(Set.of(0), config.eosIds());
    }

    @Test
    void readsTheFieldsOfOlderConfigs() throws IOException {
        var config = read("(?s)\"rope_parameters\": \\{.*?\\}", "\"rope_theta\": 10000000, \"rope_scaling\": null");
        assertEquals(1e7, config.attention().ropeTheta());
        assertEquals(ModelConfig.Mixer.FULL_ATTENTION,
                read("(?s)\"layer_types\": \\[.*?\\]", "\"full_attention_interval\": 2").layers().get(1));
    }

    @Test
    void joinsTheEndTokensOfBothFiles() throws IOException {
        Files.writeString(directory.resolve("generation_config.json"), "{\"eos_token_id\": [5, 7]}");
        assertEquals(Set.of(0, 5, 7), read("", "").eosIds());
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            Qwen3NextForCausalLM                 | LlamaForCausalLM                 | architectures is [LlamaForCausalLM]
            "hidden_size": 256,                  | ''                               | hidden_size is missing
            "hidden_size": 256                   | "hidden_size": "big"             | hidden_size is big
            "hidden_size": 256                   | "hidden_size": 25.5              | hidden_size is 25.5
            "num_hidden_layers": 4               | "num_hidden_layers": 5           | layer_types has 4 entries but num_hidden_layers is 5
            "full_attention"                     | "sliding_attention"              | layer_types holds sliding_attention
            "num_key_value_heads": 2             | "num_key_value_heads": 3         | num_attention_heads is 4, which is no multiple of num_key_value_heads = 3
            "linear_num_value_heads": 4          | "linear_num_value_heads": 3      | linear_num_value_heads is 3
            "linear_conv_kernel_dim": 4          | "linear_conv_kernel_dim": 5      | linear_conv_kernel_dim is 5
            "head_dim": 64                       | "head_dim": 60                   | head_dim is 60
            "num_experts_per_tok": 2             | "num_experts_per_tok": 9         | num_experts_per_tok is 9 of num_experts = 8
            "partial_rotary_factor": 0.25        | "partial_rotary_factor": 0.5     | partial_rotary_factor is 0.5 but that of the rotary parameters is 0.25
            "rope_type": "default"               | "rope_type": "yarn"              | rope_parameters.rope_type is yarn
            "hidden_act": "silu"                 | "hidden_act": "gelu"             | hidden_act is gelu
            "attention_bias": false              | "attention_bias": true           | attention_bias is true
            "quant_method": "gptq"               | "quant_method": "awq"            | quantization_config.quant_method is awq
            "bits": 4                            | "bits": 8                        | quantization_config.bits is 8
            "group_size": 128                    | "group_size": 100                | quantization_config.group_size is 100
            "rms_norm_eps": 1e-06                | "rms_norm_eps": 0                | rms_norm_eps is 0.0
            "vocab_size": 2048                   | "vocab_size": 2048, "vocab_size" | Duplicate
            "hidden_size": 256,                  | "hidden_size": 256               | not JSON at line
            """)
    void refusesWhatItCannotRun(String pattern, String replacement, String message) {
        var thrown = assertThrows(ModelException.class, () -> read(java.util.regex.Pattern.quote(pattern), replacement));
        assertTrue(thrown.getMessage().contains(message), thrown.getMessage());
        assertTrue(thrown.getMessage().contains("config.json"), thrown.getMessage());
    }

    /** The parser has limits of its own, of which it knows no place. */
    @Test
    void nestingAndNumbersHaveLimits() throws IOException {
        for (var text : List.of("[".repeat(2000), "{\"a\":".repeat(2000), "{\"a\": " + "9".repeat(2000) + "}")) {
            Files.writeString(directory.resolve("config.json"), text);
            var thrown = assertThrows(ModelException.class, () -> ModelConfig.read(directory));
            assertTrue(thrown.getMessage().contains("config.json: not JSON"), thrown.getMessage());
        }
    }

    @Test
    void aMissingFileIsNamed() {
        var thrown = assertThrows(ModelException.class, () -> ModelConfig.read(directory));
        assertTrue(thrown.getMessage().endsWith("config.json: no such file"), thrown.getMessage());
    }
}
