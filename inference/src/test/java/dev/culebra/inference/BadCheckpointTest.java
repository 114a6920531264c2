package dev.culebra.inference;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.Device;
import dev.culebra.io.TensorEntry;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import java.util.List;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Checkpoints that must be refused, by file, tensor and numbers, with nothing left on the device. */
class BadCheckpointTest {
    @TempDir
    Path directory;

    private Device device;

    @BeforeEach
    void open() {
        device = Device.open("cpu");
    }

    @AfterEach
    void findNothingLeft() {
        assertEquals(0, device.memory().statistics().usedBytes());
        assertEquals(0, device.memory().statistics().liveAllocations());
        device.close();
    }

    private void copy(String checkpoint, Function<TensorEntry, List<TensorEntry>> change) throws IOException {
        SampleCopy.write(checkpoint, directory, change);
    }

    private void replace(String checkpoint, String name, UnaryOperator<TensorEntry> change) throws IOException {
        copy(checkpoint, entry -> List.of(entry.name().equals(name) ? change.apply(entry) : entry));
    }

    private void copyFiles(String checkpoint) throws IOException {
        for (var name : new String[] {"config.json", "model.safetensors"}) {
            Files.copy(Golden.SAMPLES.resolve(checkpoint).resolve(name), directory.resolve(name));
        }
    }

    private void assertRefused(String... parts) {
        var thrown = assertThrows(ModelException.class, () -> Qwen3NextModel.load(device, directory, LoadProgress.NONE).close());
        for (var part : parts) {
            assertTrue(thrown.getMessage().contains(part), thrown.getMessage() + " should name " + part);
        }
    }

    @Test
    void missingTensor() throws IOException {
        var name = "model.layers.2.mlp.experts.5.up_proj.weight";
        copy("bf16", entry -> entry.name().equals(name) ? List.of() : List.of(entry));
        assertRefused("model.safetensors", name, "missing", "[128, 256]");
    }

    @Test
    void missingPartOfAQuantizedTensor() throws IOException {
        var name = "model.layers.0.linear_attn.in_proj_qkvz.scales";
        copy("gptq-int4", entry -> entry.name().equals(name) ? List.of() : List.of(entry));
        assertRefused("model.safetensors", name, "missing", "[2, 768]");
    }

    @Test
    void wrongShape() throws IOException {
        var name = "model.layers.3.self_attn.q_proj.weight";
        replace("bf16", name, entry -> SampleCopy.with(entry, entry.type(), 256, 512));
        assertRefused("model.safetensors", name, "[256, 512]", "[512, 256]");
    }

    @Test
    void wrongType() throws IOException {
        var name = "model.layers.1.input_layernorm.weight";
        replace("bf16", name, entry -> new TensorEntry(name, "I32", entry.shape(), MemorySegment.ofArray(new int[256]), entry.file()));
        assertRefused("model.safetensors", name, "is of I32", "must be of BF16 or F16 or F32");
        var scales = "model.layers.0.mlp.experts.0.down_proj.scales";
        replace("gptq-int4", scales, entry -> SampleCopy.with(entry, "BF16", 1, 256));
        assertRefused("model.safetensors", scales, "is of BF16", "must be of F16");
    }

    @Test
    void configOfAnotherSize() throws IOException {
        copyFiles("bf16");
        var config = directory.resolve("config.json");
        Files.writeString(config, Files.readString(config).replace("\"num_experts\": 8", "\"num_experts\": 16"));
        assertRefused("model.layers.0.mlp.gate.weight", "[8, 256]", "[16, 256]");
    }

    @Test
    void quantizedTensorsWithoutAConfigOfThem() throws IOException {
        copyFiles("gptq-int4");
        Files.copy(Golden.SAMPLES.resolve("bf16").resolve("config.json"), directory.resolve("config.json"),
                StandardCopyOption.REPLACE_EXISTING);
        assertRefused("in_proj_qkvz.qweight", "no quantization_config");
    }

    @Test
    void truncatedFile() throws IOException {
        copyFiles("bf16");
        try (var file = new RandomAccessFile(directory.resolve("model.safetensors").toFile(), "rw")) {
            file.setLength(file.length() - 100);
        }
        assertRefused("model.safetensors", "model.norm.weight");
    }

    @Test
    void headerThatLiesAboutItsLength() throws IOException {
        copyFiles("bf16");
        try (var file = new RandomAccessFile(directory.resolve("model.safetensors").toFile(), "rw")) {
            file.write(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(1L << 40).array());
        }
        assertRefused("model.safetensors", "1099511627776");
    }

    @Test
    void noWeights() throws IOException {
        Files.copy(Golden.SAMPLES.resolve("bf16").resolve("config.json"), directory.resolve("config.json"));
        assertRefused(directory.toString(), "model.safetensors");
    }

    @Test
    void unknownArchitecture() throws IOException {
        copyFiles("bf16");
        var config = directory.resolve("config.json");
        Files.writeString(config, Files.readString(config).replace("Qwen3NextForCausalLM", "MambaForCausalLM"));
        assertRefused("config.json", "MambaForCausalLM", "Qwen3NextForCausalLM");
    }

    @Test
    void reorderedExperts() throws IOException {
        var reversed = new int[256];
        Arrays.setAll(reversed, k -> 1 - k / 128);
        var name = "model.layers.0.mlp.experts.3.gate_proj.g_idx";
        replace("gptq-int4", name, entry ->
                new TensorEntry(name, "I32", entry.shape(), MemorySegment.ofArray(reversed), entry.file()));
        assertRefused(name, "desc_act");
    }

    @Test
    void modelLargerThanTheMemoryLimit() throws IOException {
        copyFiles("gptq-int4");
        device.memory().limit(1 << 20);
        assertRefused(directory.toString(), "bytes on cpu:0", "limit of 1048576 bytes", "0 are in use");
    }

    @Test
    void promptsAndSequencesBeyondTheContext() {
        var source = Golden.SAMPLES.resolve("bf16");
        try (var model = Qwen3NextModel.load(device, source, LoadProgress.NONE); var tokenizer = Tokenizer.load(source)) {
            var generator = new Generator(model, tokenizer);
            var tooLong = assertThrows(IllegalArgumentException.class,
                    () -> generator.generate("word ".repeat(5000), GenerationOptions.DEFAULT, piece -> {}));
            assertTrue(tooLong.getMessage().contains("the model's context of 4096"), tooLong.getMessage());
            assertThrows(IllegalArgumentException.class, () -> generator.generate("", GenerationOptions.DEFAULT, piece -> {}));
            assertThrows(IllegalArgumentException.class, () -> new Sequence(model, 4097, Sampling.GREEDY));
            try (var sequence = new Sequence(model, 4, Sampling.GREEDY)) {
                assertThrows(IllegalArgumentException.class, () -> sequence.prefill(1, 2, 3, 4, 5));
                assertThrows(IllegalArgumentException.class, () -> sequence.prefill(2048));
                assertThrows(IllegalStateException.class, sequence::next);
            }
        }
    }
}
