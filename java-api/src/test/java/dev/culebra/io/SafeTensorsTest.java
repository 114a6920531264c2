package dev.culebra.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.UnsupportedException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

class SafeTensorsTest {
    @TempDir
    Path directory;

    private Path write(String header, int dataBytes) throws IOException {
        return write("t.safetensors", header, dataBytes);
    }

    private Path write(String name, String header, int dataBytes) throws IOException {
        var json = header.getBytes(StandardCharsets.UTF_8);
        return writeRaw(name, ByteBuffer.allocate(8 + json.length + dataBytes)
                .order(ByteOrder.LITTLE_ENDIAN).putLong(json.length).put(json).array());
    }

    private Path writeRaw(String name, byte[] bytes) throws IOException {
        return Files.write(directory.resolve(name), bytes);
    }

    @ParameterizedTest
    @MethodSource("backends")
    void loadsWhatWasWritten(String backend) throws IOException {
        var file = directory.resolve("model.safetensors");
        new SafeTensorsWriter()
                .metadata("format", "pt")
                .add("half", DType.BF16, new long[] {3}, MemorySegment.ofArray(new short[] {0x3F80, 0x4000, 0x4040}))
                .add("weights", DType.F32, new long[] {2, 2}, MemorySegment.ofArray(new float[] {1, 2, 3, 4}))
                .add("scalar", DType.I64, new long[] {}, MemorySegment.ofArray(new long[] {-7}))
                .add("empty", DType.U8, new long[] {0, 9}, MemorySegment.ofArray(new byte[0]))
                .write(file);
        for (var opened : List.of(SafeTensors.open(file), SafeTensors.open(directory))) {
            assertEquals(Map.of("format", "pt"), opened.metadata());
            assertEquals(List.of("scalar", "weights", "half", "empty"), opened.names());
            try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
                assertArrayEquals(new float[] {1, 2, 3}, opened.load(stream, scope, "half").floats(stream));
                var weights = opened.load(stream, scope, "weights");
                assertArrayEquals(new long[] {2, 2}, weights.shape());
                assertArrayEquals(new float[] {1, 2, 3, 4}, weights.floats(stream));
                assertArrayEquals(new long[] {-7}, opened.load(stream, scope, "scalar").longs(stream));
                assertEquals(0, opened.load(stream, scope, "empty").elements());
                var error = assertThrows(FormatException.class, () -> opened.load(stream, scope, "bias"));
                assertTrue(error.getMessage().contains("model.safetensors: there is no tensor bias"), error.getMessage());
            }
        }
    }

    static java.util.stream.Stream<String> backends() {
        return java.util.stream.Stream.of(System.getProperty("culebra.test.backends", "cpu,simt").split(","));
    }

    @Test
    void mapsWithoutACopyOnCpu() throws IOException {
        var file = directory.resolve("m.safetensors");
        new SafeTensorsWriter()
                .add("a", DType.F32, new long[] {8}, MemorySegment.ofArray(new float[8]))
                .add("b", DType.F32, new long[] {1}, MemorySegment.ofArray(new float[1]))
                .add("c", DType.F32, new long[] {1}, MemorySegment.ofArray(new float[] {5}))
                .write(file);
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var opened = SafeTensors.open(file);
            var a = opened.load(stream, scope, "a");
            assertEquals(0, device.memory().statistics().liveAllocations());
            assertThrows(UnsupportedException.class, () -> a.zero(stream), "the file is mapped for reading");
            var c = opened.load(stream, scope, "c");
            assertEquals(1, device.memory().statistics().liveAllocations(), "not aligned: a copy");
            assertArrayEquals(new float[] {5}, c.floats(stream));
            for (var i = 0; i < 3; i++) {
                System.gc();
            }
            assertArrayEquals(new float[8], a.floats(stream), "mapped as long as it is used");
        }
    }

    @Test
    void readsShards() throws IOException {
        new SafeTensorsWriter().metadata("format", "pt")
                .add("a", DType.I32, new long[] {1}, MemorySegment.ofArray(new int[] {1})).write(directory.resolve("s1.safetensors"));
        new SafeTensorsWriter()
                .add("b", DType.I32, new long[] {1}, MemorySegment.ofArray(new int[] {2})).write(directory.resolve("s2.safetensors"));
        var index = directory.resolve("model.safetensors.index.json");
        Files.writeString(index, """
                {"metadata": {"total_size": 8}, "weight_map": {"a": "s1.safetensors", "b": "s2.safetensors"}}""");
        var opened = SafeTensors.open(directory);
        assertEquals(List.of("a", "b"), opened.names());
        assertEquals(directory.resolve("s2.safetensors").toAbsolutePath(), opened.entry("b").file());
        assertFalse(opened.contains("c"));

        Files.writeString(index, "{\"weight_map\": {\"a\": \"s1.safetensors\", \"c\": \"s2.safetensors\"}}");
        refuses(index, "tensor c is not in s2.safetensors");
        Files.writeString(index, "{\"weight_map\": {\"a\": \"s3.safetensors\"}}");
        refuses(index, "s3.safetensors is missing");
        Files.writeString(index, "{\"weight_map\": {\"a\": \"../s1.safetensors\"}}");
        refuses(index, "is no file of this directory");
        Files.writeString(index, "{\"weight_map\": {\"a\": \"s1\\u0000\"}}");
        refuses(index, "is no file of this directory");
        Files.writeString(index, "[".repeat(2000));
        refuses(index);
        Files.writeString(index, "{\"weight_map\": {\"a\": 1}}");
        refuses(index, "\"a\" must be a string");
        Files.writeString(index, "{}");
        refuses(index, "no weight_map");
        Files.writeString(index, "{\"weight_map\": {");
        refuses(index, "not JSON");
    }

    private static void refuses(Path file, String... texts) {
        var error = assertThrows(FormatException.class, () -> SafeTensors.open(file));
        assertTrue(error.getMessage().contains(file.getFileName().toString()), error.getMessage());
        for (var text : texts) {
            assertTrue(error.getMessage().contains(text), error.getMessage() + "\nshould say: " + text);
        }
    }

    /** Each header tells one lie about its 16 bytes of data. */
    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
            {"a":{"dtype":"F32","shape":[4],"data_offsets":[0,12]}}                                 | tensor a F32[4] takes 16 bytes
            {"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}                                 | has 16 bytes of data but its tensors end at 12
            {"a":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}}                                 | tensor a: data_offsets [0, 20] exceed the 16 bytes
            {"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}                                 | tensor a: data_offsets [8, 16] leave a gap behind the begin
            {"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}} | leave a gap behind tensor a, which ends at 4
            {"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}} | tensor b: data_offsets [8, 16] overlap tensor a
            {"a":{"dtype":"F33","shape":[4],"data_offsets":[0,16]}}                                 | tensor a has unknown dtype F33
            {"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}                                | shape has -4, which is negative
            {"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}                                 | run backwards
            {"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}                                | data_offsets has -16, which is negative
            {"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}             | more than 2^63 bits
            {"a":{"dtype":"F32","shape":[18446744073709551620],"data_offsets":[0,16]}}              | beyond 2^63
            {"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}}                               | shape must hold whole numbers, not 4.0
            {"a":{"dtype":"F32","shape":[4],"data_offsets":[0]}}                                    | must be two numbers
            {"a":{"dtype":"F32","shape":[4]}}                                                       | tensor a lacks data_offsets
            {"a":{"shape":[4],"data_offsets":[0,16]}}                                               | tensor a lacks dtype
            {"a":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}}                   | tensor a states dtype twice
            {"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}} | names "a" twice
            {"__metadata__":{"x":1},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}          | __metadata__: "x" must be a string
            {"a":[4]}                                                                               | tensor a must be an object
            []                                                                                      | must be a JSON object
            {"a":                                                                                   | not JSON
            {"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}} x                               | not JSON
            {"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}} {}                              | something follows the JSON object
            {"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}                                   | no whole bytes
            """)
    void refusesLies(String header, String text) throws IOException {
        refuses(write(header, 16), text);
    }

    /** What the parser itself limits, and other encodings, are faults of this file as well. */
    @Test
    void refusesWhatTheParserRefuses() throws IOException {
        refuses(write("{\"a\":{\"x\":" + "[".repeat(2000), 0), "not JSON");
        refuses(write("{\"a\":{\"x\":" + "{\"b\":".repeat(2000), 0), "not JSON");
        refuses(write("{\"a\":{\"dtype\":\"U8\",\"shape\":[" + "9".repeat(2000) + "],\"data_offsets\":[0,0]}}", 0), "not JSON");
        var text = "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}";
        for (var charset : List.of("UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE")) {
            var json = text.getBytes(Charset.forName(charset));
            refuses(writeRaw("t.safetensors", ByteBuffer.allocate(8 + json.length + 4).order(ByteOrder.LITTLE_ENDIAN)
                    .putLong(json.length).put(json).array()), "UTF-8");
        }
        refuses(writeRaw("t.safetensors", new byte[] {4, 0, 0, 0, 0, 0, 0, 0, '{', '"', (byte) 0xC3, '('}), "not JSON");
        refuses(Files.createDirectories(directory.resolve("folder/model.safetensors")).getParent(), "no regular file");
    }

    @Test
    void refusesTruncatedFiles() throws IOException {
        refuses(writeRaw("t.safetensors", new byte[7]), "7 bytes, too few");
        refuses(writeRaw("t.safetensors", new byte[] {9, 0, 0, 0, 0, 0, 0, 0, '{', '}'}), "should have 9 bytes", "has 2");
        refuses(writeRaw("t.safetensors", new byte[] {-1, -1, -1, -1, -1, -1, -1, -1}), "18446744073709551615");
        var good = write("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16);
        SafeTensors.open(good);
        var bytes = Files.readAllBytes(good);
        for (var length = 0; length < bytes.length; length++) {
            refuses(writeRaw("t.safetensors", java.util.Arrays.copyOf(bytes, length)));
        }
        assertThrows(NoSuchFileException.class, () -> SafeTensors.open(directory.resolve("none.safetensors")));
        Files.delete(good);
        var error = assertThrows(NoSuchFileException.class, () -> SafeTensors.open(directory));
        assertTrue(error.getMessage().contains("model.safetensors.index.json"), error.getMessage());
    }

    @Test
    void keepsTypesThatNoOperatorKnows() throws IOException {
        var file = write("{\"a\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,16]}}", 16);
        var opened = SafeTensors.open(file);
        assertTrue(opened.entry("a").dtype().isEmpty());
        assertEquals(16, opened.entry("a").data().byteSize());
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var error = assertThrows(FormatException.class, () -> opened.load(stream, scope, "a"));
            assertTrue(error.getMessage().contains("F64"), error.getMessage());
        }
    }

    @Test
    void writersRefuseContradictions() {
        var writer = new SafeTensorsWriter();
        var data = MemorySegment.ofArray(new byte[4]);
        assertThrows(IllegalArgumentException.class, () -> writer.add("a", DType.F32, new long[] {2}, data));
        writer.add("a", DType.F32, new long[] {1}, data);
        assertThrows(IllegalArgumentException.class, () -> writer.add("a", DType.F32, new long[] {1}, data));
        assertThrows(IllegalArgumentException.class, () -> writer.add("__metadata__", DType.F32, new long[] {1}, data));
    }
}
