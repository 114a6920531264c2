package dev.culebra.conformance;

import dev.culebra.DType;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A tensor between guard bands, its rows perhaps padded. Bands and padding hold a poison byte, and so do the elements until
 * something is written to them.
 */
public final class GuardedTensor {
    private static final int BAND_BYTES = 256;

    private final String name;
    private final Tensor whole;
    private final Tensor view;
    private final long padding;

    /** What the memory must look like outside of the elements, and inside where nothing may be written. */
    private final MemorySegment image;

    /**
     * A tensor of poison.
     *
     * @param padding elements behind each row; none where the rank is below 2
     */
    public GuardedTensor(Stream stream, Scope scope, String name, DType dtype, long[] shape, int padding, int poison) {
        this.name = name;
        this.padding = shape.length < 2 ? 0 : padding;
        var physical = shape.clone();
        if (shape.length > 0) {
            physical[shape.length - 1] += this.padding;
        }
        var band = BAND_BYTES / dtype.bytes();
        var span = HostTensor.elements(physical);
        whole = scope.allocate(dtype, span + 2 * band);
        var rows = whole.slice(0, band, band + span).reshape(physical);
        view = this.padding == 0 ? rows : rows.slice(-1, 0, shape[shape.length - 1]);
        image = Arena.ofAuto().allocate(whole.bytes(), 16).fill((byte) poison);
        whole.upload(stream, image);
    }

    /** A tensor with these contents. */
    public GuardedTensor(Stream stream, Scope scope, String name, HostTensor contents, int padding, int poison) {
        this(stream, scope, name, contents.dtype(), contents.shape(), padding, poison);
        eachRow((offset, row, bytes) -> MemorySegment.copy(contents.data(), row * bytes, image, offset, bytes));
        whole.upload(stream, image);
    }

    /** What an operator is given. */
    public Tensor view() {
        return view;
    }

    /** All of the memory, bands and padding too. */
    Tensor whole() {
        return whole;
    }

    /** The elements as they are now. */
    public HostTensor read(Stream stream) {
        return rows(download(stream));
    }

    /** What was written outside of the elements, as a sentence; null: nothing. */
    public @Nullable String strayWrite(Stream stream) {
        var now = download(stream);
        eachRow((offset, row, bytes) -> MemorySegment.copy(image, offset, now, offset, bytes));
        var at = now.mismatch(image);
        return at < 0 ? null : name + ": byte " + (at - BAND_BYTES) + " was written, outside of the tensor " + view;
    }

    /** What was written at all since it was made, as a sentence; null: nothing. */
    public @Nullable String anyWrite(Stream stream) {
        var at = download(stream).mismatch(image);
        return at < 0 ? null : name + ": byte " + (at - BAND_BYTES) + " of " + view + " was written";
    }

    private MemorySegment download(Stream stream) {
        var bytes = Arena.ofAuto().allocate(whole.bytes(), 16);
        whole.download(stream, bytes);
        return bytes;
    }

    private HostTensor rows(MemorySegment from) {
        var contents = HostTensor.zeros(view.dtype(), view.shape());
        eachRow((offset, row, bytes) -> MemorySegment.copy(from, offset, contents.data(), row * bytes, bytes));
        return contents;
    }

    private interface RowVisitor {
        void visit(long offset, long row, long bytes);
    }

    private void eachRow(RowVisitor visitor) {
        var shape = view.shape();
        var width = shape.length == 0 ? 1 : shape[shape.length - 1];
        var rows = shape.length == 0 ? 1 : HostTensor.elements(Arrays.copyOf(shape, shape.length - 1));
        var size = view.dtype().bytes();
        for (var row = 0L; width > 0 && row < rows; row++) {
            visitor.visit(BAND_BYTES + row * (width + padding) * size, row, width * size);
        }
    }
}
