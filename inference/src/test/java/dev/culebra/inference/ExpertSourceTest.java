package dev.culebra.inference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.ExpertWeights;
import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.io.SafeTensorsWriter;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.function.IntToDoubleFunction;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The same experts in every layout that checkpoints have them in. */
class ExpertSourceTest {
    private static final int COUNT = 3;
    private static final int HIDDEN = 64;
    private static final int WIDTH = 32;
    private static final int GROUP = 32;

    @TempDir
    Path directory;

    private final SafeTensorsWriter writer = new SafeTensorsWriter();
    private Device device;
    private Stream stream;
    private Scope scope;

    @BeforeEach
    void open() {
        device = Device.open("cpu");
        stream = device.openStream();
        scope = device.openScope();
    }

    @AfterEach
    void findNothingLeft() {
        scope.close();
        stream.close();
        assertEquals(0, device.memory().statistics().usedBytes());
        device.close();
    }

    /** Small integers, so that every float type has them: of gate (0), up (1) and down (2). */
    private static int value(int expert, int matrix, int n, int k) {
        return (expert * 5 + matrix * 3 + n * 7 + k) % 13 - 6;
    }

    /** Of four-bit matrices: 0 to 15. */
    private static int nibble(int expert, int matrix, int n, int k) {
        return (expert * 5 + matrix * 3 + n * 7 + k) % 16;
    }

    private static int zero(int matrix, int n, int group, boolean symmetric) {
        return symmetric ? 8 : 1 + (matrix + n + group) % 15;
    }

    private static float scale(int matrix, int n, int group) {
        return (1 + (matrix + n + group) % 4) / 8f;
    }

    private static int rows(int matrix) {
        return matrix == 2 ? HIDDEN : WIDTH;
    }

    private static int columns(int matrix) {
        return matrix == 2 ? WIDTH : HIDDEN;
    }

    private void floats(String name, DType dtype, IntToDoubleFunction value, long... shape) {
        var elements = 1;
        for (var extent : shape) {
            elements *= (int) extent;
        }
        var values = new float[elements];
        for (var i = 0; i < elements; i++) {
            values[i] = (float) value.applyAsDouble(i);
        }
        try (var own = device.openScope()) {
            var tensor = own.floats(stream, values, shape);
            var stored = own.allocate(dtype, shape);
            Ops.cast(stream, tensor, stored);
            writer.add(name, dtype, shape, MemorySegment.ofArray(stored.bytes(stream)));
        }
    }

    private void words(String name, int[] words, long... shape) {
        writer.add(name, DType.I32, shape, MemorySegment.ofArray(words));
    }

    private ExpertWeights load(ModelConfig.@Nullable Quantization quantization) throws IOException {
        writer.write(directory.resolve("model.safetensors"));
        var source = new ExpertSource(Checkpoint.open(directory), quantization, "experts",
                new ModelConfig.Experts(COUNT, 2, WIDTH, WIDTH, true), HIDDEN);
        var experts = source.load(stream, scope);
        stream.synchronize();
        return experts;
    }

    private float[] numbers(Tensor tensor) {
        var floats = scope.allocate(DType.F32, tensor.shape());
        Ops.cast(stream, tensor, floats);
        return floats.floats(stream);
    }

    private interface Element {
        double at(int expert, int matrix, int n, int k);
    }

    /** [E, rows, columns], gate rows before up rows. */
    private static float[] stacked(boolean down, Element element) {
        var n = down ? HIDDEN : 2 * WIDTH;
        var k = down ? WIDTH : HIDDEN;
        var all = new float[COUNT * n * k];
        for (var i = 0; i < all.length; i++) {
            var row = i / k % n;
            var matrix = down ? 2 : row / WIDTH;
            all[i] = (float) element.at(i / k / n, matrix, down ? row : row % WIDTH, i % k);
        }
        return all;
    }

    private void assertFloats(ExpertWeights experts) {
        assertEquals(ExpertWeights.Kind.HALF, experts.kind());
        assertArrayEquals(stacked(false, ExpertSourceTest::value), numbers(experts.w13()));
        assertArrayEquals(stacked(true, ExpertSourceTest::value), numbers(experts.w2()));
    }

    private void eachMatrix(String[] names, MatrixWriter write) {
        for (var expert = 0; expert < COUNT; expert++) {
            for (var matrix = 0; matrix < 3; matrix++) {
                write.write("experts." + expert + "." + names[matrix], expert, matrix);
            }
        }
    }

    private interface MatrixWriter {
        void write(String name, int expert, int matrix);
    }

    private static final String[] QWEN = {"gate_proj", "up_proj", "down_proj"};
    private static final String[] MIXTRAL = {"w1", "w3", "w2"};

    private void writeFloats(String[] names) {
        eachMatrix(names, (name, expert, matrix) -> floats(name + ".weight", DType.BF16,
                i -> value(expert, matrix, i / columns(matrix), i % columns(matrix)), rows(matrix), columns(matrix)));
    }

    @Test
    void oneByOne() throws IOException {
        writeFloats(QWEN);
        assertFloats(load(null));
    }

    @Test
    void byMixtralsNames() throws IOException {
        writeFloats(MIXTRAL);
        assertFloats(load(null));
    }

    @Test
    void stackedAsTheyAreMultiplied() throws IOException {
        var w13 = stacked(false, ExpertSourceTest::value);
        var w2 = stacked(true, ExpertSourceTest::value);
        floats("experts.gate_up_proj", DType.BF16, i -> w13[i], COUNT, 2 * WIDTH, HIDDEN);
        floats("experts.down_proj", DType.BF16, i -> w2[i], COUNT, HIDDEN, WIDTH);
        assertFloats(load(null));
    }

    /** gpt-oss: [in, out], gate and up channels in turn, with biases. D = 2I: the shapes do not tell. */
    @Test
    void stackedTransposedAndInterleaved() throws IOException {
        floats("experts.gate_up_proj", DType.BF16,
                i -> value(i / (HIDDEN * 2 * WIDTH), i % 2, i % (2 * WIDTH) / 2, i / (2 * WIDTH) % HIDDEN), COUNT, HIDDEN, 2 * WIDTH);
        floats("experts.down_proj", DType.BF16, i -> value(i / (WIDTH * HIDDEN), 2, i % HIDDEN, i / HIDDEN % WIDTH), COUNT, WIDTH, HIDDEN);
        floats("experts.gate_up_proj_bias", DType.BF16, i -> i % (2 * WIDTH) + i / (2 * WIDTH), COUNT, 2 * WIDTH);
        floats("experts.down_proj_bias", DType.BF16, i -> i % HIDDEN - i / HIDDEN, COUNT, HIDDEN);
        var experts = load(null);
        assertFloats(experts);
        var b13 = new float[COUNT * 2 * WIDTH];
        for (var i = 0; i < b13.length; i++) {
            var row = i % (2 * WIDTH);
            b13[i] = 2 * (row % WIDTH) + row / WIDTH + i / (2 * WIDTH);
        }
        assertNotNull(experts.b13());
        assertNotNull(experts.b2());
        assertArrayEquals(b13, numbers(experts.b13()));
        assertEquals(HIDDEN - 1 - 2, numbers(experts.b2())[COUNT * HIDDEN - 1]);
    }

    @Test
    void mxfp4IsRefused() {
        writer.add("experts.gate_up_proj_blocks", DType.U8, new long[] {1}, MemorySegment.ofArray(new byte[1]));
        assertTrue(assertThrows(ModelException.class, () -> load(null)).getMessage().contains("MXFP4"));
    }

    private static double dequantized(int expert, int matrix, int n, int k, boolean symmetric) {
        return (nibble(expert, matrix, n, k) - zero(matrix, n, k / GROUP, symmetric)) * scale(matrix, n, k / GROUP);
    }

    private void assertInt4(ExpertWeights experts, boolean symmetric) {
        assertEquals(ExpertWeights.Kind.INT4, experts.kind());
        assertEquals(GROUP, experts.group());
        for (var down : new boolean[] {false, true}) {
            var weights = (down ? experts.w2() : experts.w13()).bytes(stream);
            var scales = numbers(down ? experts.w2Scales() : experts.w13Scales());
            var zeroPoints = down ? experts.w2Zeros() : experts.w13Zeros();
            if (symmetric) {
                assertNull(zeroPoints);
            }
            var zeros = zeroPoints == null ? null : zeroPoints.bytes(stream);
            var k = down ? WIDTH : HIDDEN;
            var groups = k / GROUP;
            var numbers = new float[weights.length * 2];
            for (var i = 0; i < numbers.length; i++) {
                var row = i / k;
                var group = i % k / GROUP;
                var zero = zeros == null ? 8 : zeros[row / 2 * groups + group] >> 4 * (row % 2) & 15;
                numbers[i] = ((weights[i / 2] >> 4 * (i % 2) & 15) - zero) * scales[row * groups + group];
            }
            assertArrayEquals(stacked(down, (expert, matrix, n, j) -> dequantized(expert, matrix, n, j, symmetric)), numbers);
        }
    }

    /** Nibble i of word (a, b) is what {@code value} says. */
    private interface Nibble {
        int of(int a, int b, int i);
    }

    private static int[] packed(int outer, int inner, Nibble value) {
        var words = new int[outer * inner];
        for (var i = 0; i < words.length * 8; i++) {
            words[i / 8] |= value.of(i / 8 / inner, i / 8 % inner, i % 8) << 4 * (i % 8);
        }
        return words;
    }

    private void writeGptq(boolean symmetric, int stored) {
        eachMatrix(QWEN, (name, expert, matrix) -> {
            int n = rows(matrix);
            int k = columns(matrix);
            words(name + ".qweight", packed(k / 8, n, (r, c, i) -> nibble(expert, matrix, c, 8 * r + i)), k / 8, n);
            words(name + ".qzeros", packed(k / GROUP, n / 8, (g, c, i) -> zero(matrix, 8 * c + i, g, symmetric) - stored), k / GROUP, n / 8);
            floats(name + ".scales", DType.F16, i -> scale(matrix, i % n, i / n), k / GROUP, n);
        });
    }

    @Test
    void gptqOfBothVersions() throws IOException {
        writeGptq(false, 1);
        assertInt4(load(new ModelConfig.Quantization(GROUP, false)), false);
    }

    @Test
    void gptqSymmetric() throws IOException {
        writeGptq(true, 0);
        assertInt4(load(new ModelConfig.Quantization(GROUP, true)), true);
    }

    @Test
    void awq() throws IOException {
        int[] order = {0, 2, 4, 6, 1, 3, 5, 7};
        eachMatrix(MIXTRAL, (name, expert, matrix) -> {
            int n = rows(matrix);
            int k = columns(matrix);
            words(name + ".qweight", packed(k, n / 8, (r, c, i) -> nibble(expert, matrix, 8 * c + order[i], r)), k, n / 8);
            words(name + ".qzeros", packed(k / GROUP, n / 8, (g, c, i) -> zero(matrix, 8 * c + order[i], g, false)), k / GROUP, n / 8);
            floats(name + ".scales", DType.F16, i -> scale(matrix, i % n, i / n), k / GROUP, n);
        });
        assertInt4(load(null), false);
    }

    private void writeCompressed(boolean symmetric) {
        eachMatrix(QWEN, (name, expert, matrix) -> {
            int n = rows(matrix);
            int k = columns(matrix);
            words(name + ".weight_packed", packed(n, k / 8, (r, c, i) -> nibble(expert, matrix, r, 8 * c + i)), n, k / 8);
            floats(name + ".weight_scale", DType.BF16, i -> scale(matrix, i / (k / GROUP), i % (k / GROUP)), n, k / GROUP);
            if (!symmetric) {
                words(name + ".weight_zero_point", packed(n / 8, k / GROUP, (r, g, i) -> zero(matrix, 8 * r + i, g, false)), n / 8, k / GROUP);
            }
        });
    }

    @Test
    void compressedTensors() throws IOException {
        writeCompressed(false);
        assertInt4(load(null), false);
    }

    @Test
    void compressedTensorsSymmetric() throws IOException {
        writeCompressed(true);
        assertInt4(load(null), true);
    }

    /** DeepSeek-V3: blocks of 128 x 128, those of gate before those of up. */
    @Test
    void f8WithScalesOfBlocks() throws IOException {
        int wide = 256;
        int inner = 128;
        eachMatrix(QWEN, (name, expert, matrix) -> {
            int n = matrix == 2 ? wide : inner;
            int k = matrix == 2 ? inner : wide;
            floats(name + ".weight", DType.F8E4M3, i -> value(expert, matrix, i / k, i % k), n, k);
            floats(name + ".weight_scale_inv", DType.F32, i -> 1 + expert + 10 * matrix + i / 4f, n / 128, k / 128);
        });
        writer.write(directory.resolve("model.safetensors"));
        var experts = new ExpertSource(Checkpoint.open(directory), null, "experts",
                new ModelConfig.Experts(COUNT, 2, inner, inner, true), wide).load(stream, scope);
        assertEquals(ExpertWeights.Kind.F8, experts.kind());
        var w13 = numbers(experts.w13());
        for (var i = 0; i < w13.length; i += 101) {
            var row = i / wide % (2 * inner);
            assertEquals(value(i / wide / (2 * inner), row / inner, row % inner, i % wide), w13[i], "element " + i);
        }
        assertArrayEquals(new float[] {1, 1.25f, 11, 11.25f, 2, 2.25f, 12, 12.25f, 3, 3.25f, 13, 13.25f}, numbers(experts.w13Scales()));
        assertArrayEquals(new float[] {21, 21.25f, 22, 22.25f, 23, 23.25f}, numbers(experts.w2Scales()));
    }
}
