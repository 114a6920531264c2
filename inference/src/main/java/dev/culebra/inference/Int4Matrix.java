package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import org.jspecify.annotations.Nullable;

/**
 * A four-bit matrix [n, k] as {@code moe_mlp} takes it, out of a checkpoint's layout.
 *
 * @param weights [n, k / 2], the even k in the low nibble
 * @param zeros [n, groups]; null: 8
 * @param scales [n, groups], any strides
 */
record Int4Matrix(byte[] weights, int @Nullable [] zeros, Tensor scales) {
    /** The layouts. */
    enum Format {
        /** qweight [k/8, n], qzeros [groups, n/8], scales [groups, n], perhaps g_idx [k]. */
        GPTQ,
        /** qweight [k, n/8], qzeros [groups, n/8], scales [groups, n]. */
        AWQ,
        /** weight_packed [n, k/8], weight_scale [n, groups], perhaps weight_zero_point [n/8, groups]. */
        COMPRESSED_TENSORS
    }

    private static final ValueLayout.OfInt WORD = ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    /** Nibble i of a word of AWQ is column AWQ_ORDER[i] of its eight. */
    private static final int[] AWQ_ORDER = {0, 2, 4, 6, 1, 3, 5, 7};

    /** Refuses a matrix that is not whole. */
    static void check(Checkpoint checkpoint, Format format, String name, long n, long k, int group) {
        var words = name + (format == Format.COMPRESSED_TENSORS ? ".weight_packed" : ".qweight");
        if (n % Gptq.PER_WORD != 0 || k % Gptq.PER_WORD != 0) {
            throw checkpoint.error(words, "holds a matrix [" + n + ", " + k + "]; both must be multiples of " + Gptq.PER_WORD);
        }
        var groups = Gptq.groups(group, k);
        if (format == Format.COMPRESSED_TENSORS) {
            checkpoint.check(words, new long[] {n, k / Gptq.PER_WORD}, DType.I32);
            checkpoint.check(name + ".weight_scale", new long[] {n, groups}, DType.F16, DType.BF16);
            if (checkpoint.contains(name + ".weight_zero_point")) {
                checkpoint.check(name + ".weight_zero_point", new long[] {n / Gptq.PER_WORD, groups}, DType.I32);
            }
            return;
        }
        checkpoint.check(words, new long[] {k, n / Gptq.PER_WORD}, DType.I32);
        checkpoint.check(name + ".qzeros", new long[] {groups, n / Gptq.PER_WORD}, DType.I32);
        checkpoint.check(name + ".scales", new long[] {groups, n}, DType.F16);
    }

    /** Reads one; its scales live as long as {@code reading}. */
    static Int4Matrix read(
            Checkpoint checkpoint, Stream stream, Scope reading, Format format, String name, int n, int k, int group, boolean v2) {
        var groups = (int) Gptq.groups(group, k);
        return switch (format) {
            case GPTQ -> {
                if (Gptq.reordered(checkpoint, stream, reading, name, group) != null) {
                    throw checkpoint.error(name + ".g_idx", "reorders the channels of an expert (desc_act), which is not supported");
                }
                yield new Int4Matrix(transposed(ints(checkpoint, stream, reading, name + ".qweight"), n),
                        gptqZeros(checkpoint, ints(checkpoint, stream, reading, name + ".qzeros"), name, n, groups, v2),
                        checkpoint.load(stream, reading, name + ".scales").transpose(0, 1));
            }
            case AWQ -> {
                var words = ints(checkpoint, stream, reading, name + ".qweight");
                var weights = new byte[n * (k / 2)];
                for (var i = 0; i < words.length; i++) {
                    var channel = i / (n / Gptq.PER_WORD);
                    for (var nibble = 0; nibble < Gptq.PER_WORD; nibble++) {
                        var row = i % (n / Gptq.PER_WORD) * Gptq.PER_WORD + AWQ_ORDER[nibble];
                        weights[row * (k / 2) + channel / 2] |= (byte) ((words[i] >>> 4 * nibble & 15) << 4 * (channel % 2));
                    }
                }
                var packed = ints(checkpoint, stream, reading, name + ".qzeros");
                var zeros = new int[n * groups];
                for (var i = 0; i < packed.length; i++) {
                    for (var nibble = 0; nibble < Gptq.PER_WORD; nibble++) {
                        var row = i % (n / Gptq.PER_WORD) * Gptq.PER_WORD + AWQ_ORDER[nibble];
                        zeros[row * groups + i / (n / Gptq.PER_WORD)] = packed[i] >>> 4 * nibble & 15;
                    }
                }
                yield new Int4Matrix(weights, zeros, checkpoint.load(stream, reading, name + ".scales").transpose(0, 1));
            }
            case COMPRESSED_TENSORS -> {
                if (checkpoint.contains(name + ".weight_g_idx")) {
                    throw checkpoint.error(name + ".weight_g_idx", "reorders the channels of an expert, which is not supported");
                }
                yield new Int4Matrix(bytes(ints(checkpoint, stream, reading, name + ".weight_packed")),
                        checkpoint.contains(name + ".weight_zero_point")
                                ? rowZeros(ints(checkpoint, stream, reading, name + ".weight_zero_point"), n, groups)
                                : null,
                        checkpoint.load(stream, reading, name + ".weight_scale"));
            }
        };
    }

    private static int[] ints(Checkpoint checkpoint, Stream stream, Scope reading, String name) {
        return checkpoint.load(stream, reading, name).ints(stream);
    }

    /** Eight k of one n a word, the first in its lowest bits: as bytes these are two k each, in order. */
    private static byte[] bytes(int[] words) {
        var bytes = new byte[words.length * Integer.BYTES];
        var segment = MemorySegment.ofArray(bytes);
        for (var i = 0; i < words.length; i++) {
            segment.setAtIndex(WORD, i, words[i]);
        }
        return bytes;
    }

    /** GPTQ's words [k/8, n] as [n, k/8]. */
    private static byte[] transposed(int[] words, int n) {
        var rows = words.length / n;
        var result = new int[words.length];
        for (var row = 0; row < rows; row++) {
            for (var column = 0; column < n; column++) {
                result[column * rows + row] = words[row * n + column];
            }
        }
        return bytes(result);
    }

    private static int[] gptqZeros(Checkpoint checkpoint, int[] words, String name, int n, int groups, boolean v2) {
        var zeros = new int[n * groups];
        for (var group = 0; group < groups; group++) {
            for (var row = 0; row < n; row++) {
                var stored = words[group * (n / Gptq.PER_WORD) + row / Gptq.PER_WORD] >>> 4 * (row % Gptq.PER_WORD) & 15;
                var zero = v2 ? stored : stored + 1;
                if (zero > 15) {
                    throw checkpoint.error(name + ".qzeros", "has a zero point of 16 in row " + row + ", group " + group
                            + "; experts take 0 to 15");
                }
                zeros[row * groups + group] = zero;
            }
        }
        return zeros;
    }

    /** Words [n/8, groups], eight rows each. */
    private static int[] rowZeros(int[] words, int n, int groups) {
        var zeros = new int[n * groups];
        for (var row = 0; row < n; row++) {
            for (var group = 0; group < groups; group++) {
                zeros[row * groups + group] =
                        words[row / Gptq.PER_WORD * groups + group] >>> 4 * (row % Gptq.PER_WORD) & 15;
            }
        }
        return zeros;
    }
}
