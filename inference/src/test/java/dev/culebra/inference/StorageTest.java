package dev.culebra.inference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.culebra.Device;
import dev.culebra.io.SafeTensors;
import dev.culebra.io.SafeTensorsWriter;
import dev.culebra.io.TensorEntry;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.function.Predicate;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** One model stored in several ways: the logits must not depend on the way. */
class StorageTest {
    private static final String QUANTIZED = "gptq-int4";

    @TempDir
    Path directory;

    private Device device;
    private int[] ids;

    @BeforeEach
    void open() throws IOException {
        device = Device.open("cpu");
        // Behind the 16th, rounding alone decides which expert a token goes to.
        ids = Arrays.copyOf(Golden.read(QUANTIZED).texts().getFirst().greedyIds(), 16);
    }

    @AfterEach
    void findNothingLeft() {
        assertEquals(0, device.memory().statistics().usedBytes());
        device.close();
    }

    private float[][] logits(Path checkpoint) {
        try (var model = Qwen3NextModel.load(device, checkpoint, LoadProgress.NONE);
                var sequence = new Sequence(model, ids.length, Sampling.GREEDY)) {
            return sequence.logits(ids);
        }
    }

    private void assertSameAsTheSample(float tolerance) {
        assertSame(logits(Golden.SAMPLES.resolve(QUANTIZED)), logits(directory), tolerance);
    }

    private static void assertSame(float[][] expected, float[][] actual, float tolerance) {
        for (var i = 0; i < expected.length; i++) {
            if (tolerance == 0) {
                assertArrayEquals(expected[i], actual[i], "logits behind token " + i);
            } else {
                assertArrayEquals(expected[i], actual[i], tolerance, "logits behind token " + i);
            }
        }
    }

    @Test
    void shards() throws IOException {
        var entries = List.copyOf(SafeTensors.open(Golden.SAMPLES.resolve(QUANTIZED)).entries());
        var index = new StringBuilder();
        for (var shard = 0; shard < 3; shard++) {
            var name = "model-0000" + (shard + 1) + "-of-00003.safetensors";
            var writer = new SafeTensorsWriter();
            for (var i = shard; i < entries.size(); i += 3) {
                var entry = entries.get(i);
                writer.add(entry.name(), entry.dtype().orElseThrow(), entry.extents(), entry.data());
                index.append(index.isEmpty() ? "" : ", ").append('"').append(entry.name()).append("\": \"").append(name).append('"');
            }
            writer.write(directory.resolve(name));
        }
        Files.writeString(directory.resolve("model.safetensors.index.json"), "{\"weight_map\": {" + index + "}}");
        SampleCopy.copyConfig(QUANTIZED, directory);
        assertSameAsTheSample(0);
    }

    @Test
    void zeroPointsAsTheyAre() throws IOException {
        SampleCopy.write(QUANTIZED, directory, entry -> List.of(entry.name().endsWith(".qzeros")
                ? ints(entry, Arrays.stream(ints(entry)).map(word -> word + 0x11111111).toArray()) : entry));
        var config = directory.resolve("config.json");
        Files.writeString(config, Files.readString(config).replace("\"checkpoint_format\": \"gptq\"", "\"checkpoint_format\": \"gptq_v2\""));
        assertSameAsTheSample(0);
    }

    /** Groups that change places in some of the matrices that become one: these can no longer be one. */
    @Test
    void reorderedGroups() throws IOException {
        var reordered = containing("k_proj", "shared_expert.gate_proj", "out_proj", "in_proj_qkvz");
        SampleCopy.write(QUANTIZED, directory, entry -> {
            if (!reordered.test(entry.name())) {
                return List.of(entry);
            }
            if (entry.name().endsWith(".g_idx")) {
                return List.of(ints(entry, Arrays.stream(ints(entry)).map(group -> 1 - group).toArray()));
            }
            return List.of(entry.name().endsWith(".scales") || entry.name().endsWith(".qzeros") ? rowsSwapped(entry) : entry);
        });
        assertSameAsTheSample(0.05f);
    }

    /** The same numbers without quantization, in a part of the model: dense matrices beside quantized ones. */
    @Test
    void partlyDequantized() throws IOException {
        dequantize(QUANTIZED, containing("up_proj", "v_proj", "out_proj").and(name -> !name.contains(".experts.")));
        assertSameAsTheSample(0.05f);
    }

    /** Zero points of their own in every group of every matrix, against the same numbers without quantization. */
    @Test
    void asymmetricWeights(@TempDir Path quantized) throws IOException {
        var seed = 20240607L;
        var random = new Random(seed);
        SampleCopy.write(QUANTIZED, quantized, entry -> List.of(entry.name().endsWith(".qzeros")
                ? ints(entry, random.ints(ints(entry).length).map(word -> near7(word)).toArray()) : entry));
        var entries = SafeTensors.open(quantized);
        SampleCopy.write(QUANTIZED, directory, entry -> dequantized(entries, entry, name -> true));
        var expected = logits(directory);
        var actual = logits(quantized);
        for (var i = 0; i < expected.length; i++) {
            assertArrayEquals(expected[i], actual[i], 0.1f, "seed " + seed + ": logits behind token " + i);
        }
    }

    /** Eight stored zero points of 6 to 8. */
    private static int near7(int random) {
        var word = 0;
        for (var i = 0; i < 8; i++) {
            word |= 6 + Integer.remainderUnsigned(random >>> 4 * i & 15, 3) << 4 * i;
        }
        return word;
    }

    private void dequantize(String checkpoint, Predicate<String> which) throws IOException {
        var entries = SafeTensors.open(Golden.SAMPLES.resolve(checkpoint));
        SampleCopy.write(checkpoint, directory, entry -> dequantized(entries, entry, which));
    }

    /** What takes the place of a tensor: of a quantized matrix, the one tensor {@code .weight} in f32. */
    private static List<TensorEntry> dequantized(SafeTensors entries, TensorEntry entry, Predicate<String> which) {
        var name = entry.name().replaceFirst("\\.(qweight|qzeros|scales|g_idx)$", "");
        if (name.equals(entry.name()) || !which.test(name)) {
            return List.of(entry);
        }
        if (!entry.name().endsWith(".qweight")) {
            return List.of();
        }
        try {
            var words = ints(entry);
            var zeros = ints(entries.entry(name + ".qzeros"));
            var scales = entries.entry(name + ".scales").data();
            var n = Math.toIntExact(entry.shape().get(1));
            var k = words.length / n * 8;
            var weights = new float[n * k];
            for (var row = 0; row < n; row++) {
                for (var column = 0; column < k; column++) {
                    var group = column / 128;
                    var q = words[column / 8 * n + row] >>> 4 * (column % 8) & 15;
                    var zero = (zeros[group * (n / 8) + row / 8] >>> 4 * (row % 8) & 15) + 1;
                    var scale = Float.float16ToFloat(scales.get(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * (group * n + row)));
                    weights[row * k + column] = (q - zero) * scale;
                }
            }
            return List.of(new TensorEntry(name + ".weight", "F32", List.of((long) n, (long) k), MemorySegment.ofArray(weights), entry.file()));
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    /** Names that contain one of some words. */
    private static Predicate<String> containing(String... words) {
        return name -> Arrays.stream(words).anyMatch(name::contains);
    }

    private static int[] ints(TensorEntry entry) {
        return entry.data().toArray(ValueLayout.JAVA_INT_UNALIGNED);
    }

    private static TensorEntry ints(TensorEntry entry, int... values) {
        return new TensorEntry(entry.name(), "I32", entry.shape(), MemorySegment.ofArray(values), entry.file());
    }

    /** The two rows of a tensor in the other order. */
    private static TensorEntry rowsSwapped(TensorEntry entry) {
        var bytes = entry.data().toArray(ValueLayout.JAVA_BYTE);
        var half = bytes.length / 2;
        var swapped = new byte[bytes.length];
        System.arraycopy(bytes, half, swapped, 0, half);
        System.arraycopy(bytes, 0, swapped, half, half);
        return new TensorEntry(entry.name(), entry.type(), entry.shape(), MemorySegment.ofArray(swapped), entry.file());
    }
}
