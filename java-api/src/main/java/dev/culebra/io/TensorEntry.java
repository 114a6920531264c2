package dev.culebra.io;

import dev.culebra.DType;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/**
 * One tensor of a safetensors file.
 *
 * @param name its name
 * @param type its element type as the header names it, {@code BF16} for one
 * @param shape its extents
 * @param data its elements, row-major and little endian, read-only; the file stays mapped as long as this is reachable
 * @param file the file that it is in
 */
public record TensorEntry(String name, String type, List<Long> shape, MemorySegment data, Path file) {
    /** The element type; empty for one that operators do not know, F64 for one. */
    public Optional<DType> dtype() {
        return Arrays.stream(DType.values())
                .filter(dtype -> dtype.safeTensorsName().equals(type))
                .findFirst();
    }

    /** The extents as an array. */
    public long[] extents() {
        return shape.stream().mapToLong(Long::longValue).toArray();
    }

    /** {@code model.norm.weight BF16[64]}. */
    @Override
    public String toString() {
        return name + " " + type + shape;
    }
}
