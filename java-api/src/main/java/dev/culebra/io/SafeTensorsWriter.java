package dev.culebra.io;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import dev.culebra.DType;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Writes a safetensors file. Tensors are added with their contents, which are read when the file is written. */
public final class SafeTensorsWriter {
    /** Data begin at a multiple of this, so that a mapped tensor can be used where it lies. */
    private static final int ALIGNMENT_BYTES = 64;

    private static final int CHUNK_BYTES = 1 << 22;

    private record Item(String name, DType dtype, long[] shape, MemorySegment data) {}

    private final List<Item> items = new ArrayList<>();
    private final Set<String> names = new HashSet<>();
    private final Map<String, String> metadata = new LinkedHashMap<>();

    /** An empty file. */
    public SafeTensorsWriter() {}

    /** Adds a string to {@code __metadata__}. */
    public SafeTensorsWriter metadata(String key, String value) {
        metadata.put(key, value);
        return this;
    }

    /**
     * Adds a tensor.
     *
     * @param data its elements, row-major and little endian
     * @throws IllegalArgumentException if the name was used, or the size of the data is not that of shape and type
     */
    public SafeTensorsWriter add(String name, DType dtype, long[] shape, MemorySegment data) {
        var bytes = Arrays.stream(shape).reduce(dtype.bytes(), Math::multiplyExact);
        if (data.byteSize() != bytes) {
            throw new IllegalArgumentException(
                    "tensor " + name + " " + dtype + Arrays.toString(shape) + " takes " + bytes + " bytes, not "
                            + data.byteSize());
        }
        if (name.equals("__metadata__") || !names.add(name)) {
            throw new IllegalArgumentException("the name " + name + " is taken");
        }
        items.add(new Item(name, dtype, shape.clone(), data));
        return this;
    }

    /** Writes the file beside its place and moves it there when it is complete. */
    public void write(Path file) throws IOException {
        // Wide elements first: every tensor is then aligned to its elements.
        var inOrder = new ArrayList<>(items);
        inOrder.sort(Comparator.comparing((Item item) -> -item.dtype.bytes()).thenComparing(Item::name));
        var target = file.toAbsolutePath();
        var partial = Files.createTempFile(target.getParent(), target.getFileName().toString(), ".part");
        try {
            try (var channel = FileChannel.open(partial, StandardOpenOption.WRITE)) {
                writeAll(channel, header(inOrder));
                var chunk = ByteBuffer.allocateDirect(CHUNK_BYTES);
                for (var item : inOrder) {
                    for (var offset = 0L; offset < item.data.byteSize(); offset += CHUNK_BYTES) {
                        var bytes = (int) Math.min(CHUNK_BYTES, item.data.byteSize() - offset);
                        MemorySegment.copy(item.data, offset, MemorySegment.ofBuffer(chunk.clear()), 0, bytes);
                        writeAll(channel, chunk.limit(bytes));
                    }
                }
            }
            Files.move(partial, target, StandardCopyOption.REPLACE_EXISTING);
        } finally {
            Files.deleteIfExists(partial);
        }
    }

    private ByteBuffer header(List<Item> inOrder) throws IOException {
        var json = new ByteArrayOutputStream();
        try (var generator = new JsonFactory().createGenerator(json)) {
            generator.writeStartObject();
            if (!metadata.isEmpty()) {
                generator.writeObjectFieldStart("__metadata__");
                for (var entry : metadata.entrySet()) {
                    generator.writeStringField(entry.getKey(), entry.getValue());
                }
                generator.writeEndObject();
            }
            var offset = 0L;
            for (var item : inOrder) {
                generator.writeObjectFieldStart(item.name);
                generator.writeStringField("dtype", item.dtype.safeTensorsName());
                writeNumbers(generator, "shape", item.shape);
                writeNumbers(generator, "data_offsets", offset, offset += item.data.byteSize());
                generator.writeEndObject();
            }
            generator.writeEndObject();
        }
        var unpadded = Long.BYTES + json.size();
        var padding = Math.ceilDiv(unpadded, ALIGNMENT_BYTES) * ALIGNMENT_BYTES - unpadded;
        json.write(" ".repeat(padding).getBytes(StandardCharsets.US_ASCII));
        return ByteBuffer.allocate(Long.BYTES + json.size())
                .order(ByteOrder.LITTLE_ENDIAN)
                .putLong(json.size())
                .put(json.toByteArray())
                .flip();
    }

    private static void writeNumbers(JsonGenerator generator, String key, long... values) throws IOException {
        generator.writeFieldName(key);
        generator.writeArray(values, 0, values.length);
    }

    private static void writeAll(WritableByteChannel channel, ByteBuffer bytes) throws IOException {
        while (bytes.hasRemaining()) {
            channel.write(bytes);
        }
    }
}
