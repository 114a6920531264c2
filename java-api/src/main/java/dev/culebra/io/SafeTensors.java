package dev.culebra.io;

import com.fasterxml.jackson.core.JsonToken;
import dev.culebra.Backend;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A checkpoint in the safetensors format, mapped into memory: one file, or the shards of a
 * {@code model.safetensors.index.json}. Opening reads and checks the headers; data are read when they are used. A
 * mapping lasts as long as something that was taken from it is reachable. The files must not be shortened meanwhile.
 */
public final class SafeTensors {
    private static final String SINGLE = "model.safetensors";
    private static final String INDEX = "model.safetensors.index.json";

    /** As in the reference implementation: a longer header is a lie. */
    private static final long LONGEST_HEADER_BYTES = 100_000_000;

    private static final ValueLayout.OfLong LENGTH =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    private final Path path;
    private final Map<String, TensorEntry> entries;
    private final Map<String, String> metadata;

    private SafeTensors(Path path, Map<String, TensorEntry> entries, Map<String, String> metadata) {
        this.path = path;
        this.entries = entries;
        this.metadata = metadata;
    }

    /**
     * Opens a {@code .safetensors} file, an index ({@code .json}) or a directory that holds {@code model.safetensors}
     * or {@code model.safetensors.index.json}.
     *
     * @throws FormatException if a header contradicts itself, the size of its file or the index
     * @throws IOException if a file is missing or cannot be read
     */
    public static SafeTensors open(Path path) throws IOException {
        if (Files.isDirectory(path)) {
            var single = path.resolve(SINGLE);
            var index = path.resolve(INDEX);
            if (Files.exists(index)) {
                return openIndex(index);
            }
            if (Files.exists(single)) {
                return openFile(single);
            }
            throw new NoSuchFileException(path.toString(), null, "has neither " + SINGLE + " nor " + INDEX);
        }
        return path.toString().endsWith(".json") ? openIndex(path) : openFile(path);
    }

    private static SafeTensors openFile(Path file) throws IOException {
        if (Files.exists(file) && !Files.isRegularFile(file)) {
            throw new FormatException(file, "is no regular file, which could be mapped into memory");
        }
        try (var channel = FileChannel.open(file, StandardOpenOption.READ)) {
            var size = channel.size();
            if (size < Long.BYTES) {
                throw new FormatException(file, "the file has " + size + " bytes, too few for the length of a header");
            }
            // The collector unmaps it: never under queued work, which keeps what it reads reachable.
            var mapping = channel.map(FileChannel.MapMode.READ_ONLY, 0, size, Arena.ofAuto());
            var headerBytes = mapping.get(LENGTH, 0);
            if (headerBytes < 0 || headerBytes > size - Long.BYTES) {
                throw new FormatException(file, "the header should have " + Long.toUnsignedString(headerBytes)
                        + " bytes but the file has " + (size - Long.BYTES) + " behind its length");
            }
            if (headerBytes > LONGEST_HEADER_BYTES) {
                throw new FormatException(file, "the header has " + headerBytes + " bytes; the format allows "
                        + LONGEST_HEADER_BYTES);
            }
            var json = mapping.asSlice(Long.BYTES, headerBytes).toArray(ValueLayout.JAVA_BYTE);
            var data = mapping.asSlice(Long.BYTES + headerBytes);
            var header = Header.parse(file, json, data.byteSize());
            var entries = new LinkedHashMap<String, TensorEntry>();
            for (var item : header.items()) {
                var bytes = data.asSlice(item.begin(), item.end() - item.begin());
                entries.put(item.name(), new TensorEntry(item.name(), item.type(), item.shape(), bytes, file));
            }
            return new SafeTensors(file, entries, header.metadata());
        }
    }

    private static SafeTensors openIndex(Path index) throws IOException {
        var directory = index.toAbsolutePath().getParent();
        var shards = new LinkedHashMap<String, SafeTensors>();
        var entries = new LinkedHashMap<String, TensorEntry>();
        var metadata = new LinkedHashMap<String, String>();
        for (var mapped : weightMap(index).entrySet()) {
            var name = mapped.getKey();
            var shardName = mapped.getValue();
            var shard = shards.get(shardName);
            if (shard == null) {
                var file = sibling(directory, shardName);
                if (file == null) {
                    throw new FormatException(index, "tensor " + name + ": \"" + shardName
                            + "\" is no file of this directory");
                }
                if (!Files.exists(file)) {
                    throw new FormatException(index, "tensor " + name + ": its file " + shardName + " is missing");
                }
                shard = openFile(file);
                shards.put(shardName, shard);
                metadata.putAll(shard.metadata);
            }
            var entry = shard.entries.get(name);
            if (entry == null) {
                throw new FormatException(index, "tensor " + name + " is not in " + shardName
                        + ", where the index has it");
            }
            entries.put(name, entry);
        }
        return new SafeTensors(index, entries, metadata);
    }

    /** The file of that name; null if it would be elsewhere, or cannot be. */
    private static @Nullable Path sibling(Path directory, String name) {
        try {
            var file = directory.resolve(name).normalize();
            return directory.equals(file.getParent()) ? file : null;
        } catch (InvalidPathException e) {
            return null;
        }
    }

    private static Map<String, String> weightMap(Path index) throws IOException {
        Map<String, String> weights = null;
        var json = Files.readAllBytes(index);
        try (var parser = Header.parser(json)) {
            Header.expect(index, parser.nextToken(), JsonToken.START_OBJECT, "the index must be a JSON object");
            for (var key = parser.nextFieldName(); key != null; key = parser.nextFieldName()) {
                if (key.equals("weight_map")) {
                    weights = Header.strings(index, parser, "weight_map");
                } else {
                    parser.nextToken();
                    parser.skipChildren();
                }
            }
        } catch (FormatException e) {
            throw e;
        } catch (IOException e) {
            throw new FormatException(index, "the index is not JSON: " + Header.fault(e));
        }
        if (weights == null) {
            throw new FormatException(index, "the index has no weight_map");
        }
        return weights;
    }

    /** What was opened: a file or an index. */
    public Path path() {
        return path;
    }

    /** All tensors, in the order of the headers. */
    public Collection<TensorEntry> entries() {
        return Collections.unmodifiableCollection(entries.values());
    }

    /** The names of all tensors. */
    public List<String> names() {
        return new ArrayList<>(entries.keySet());
    }

    /** The strings of {@code __metadata__}; of all shards together. */
    public Map<String, String> metadata() {
        return Collections.unmodifiableMap(metadata);
    }

    /** If there is a tensor of this name. */
    public boolean contains(String name) {
        return entries.containsKey(name);
    }

    /**
     * The tensor of this name.
     *
     * @throws FormatException if there is none
     */
    public TensorEntry entry(String name) throws FormatException {
        var entry = entries.get(name);
        if (entry == null) {
            throw new FormatException(path, "there is no tensor " + name);
        }
        return entry;
    }

    /**
     * A tensor with these contents on the scope's device: on cpu the mapping itself, without a copy and read-only,
     * where it is aligned; otherwise a copy, which is complete when the call returns.
     *
     * @param stream of the scope's device
     * @throws FormatException if there is no tensor of this name, or its element type is one that operators do not know
     * @throws dev.culebra.MemoryException if the device's memory, or the limit set on it, is exhausted
     */
    public Tensor load(Stream stream, Scope scope, String name) throws FormatException {
        var entry = entry(name);
        var dtype = entry.dtype().orElseThrow(() -> new FormatException(
                entry.file(), "tensor " + entry + ": no operator knows its element type"));
        MemorySegment data = entry.data();
        if (scope.device().backend() == Backend.CPU && data.address() % 16 == 0) {
            return scope.wrap(data, dtype, entry.extents());
        }
        var tensor = scope.allocate(dtype, entry.extents());
        try {
            tensor.upload(stream, data);
            return tensor;
        } catch (RuntimeException e) {
            tensor.close();
            throw e;
        }
    }
}
