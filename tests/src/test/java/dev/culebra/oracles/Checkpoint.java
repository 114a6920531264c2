package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.WeightFormat;
import dev.culebra.conformance.HostTensor;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A quantized matrix [n, k] spread out: one integer each. {@code w = (q - z) s}.
 *
 * @param q unsigned, [n, k]
 * @param zeros unsigned, [n, groups]
 * @param scales [n, groups]
 * @param group of each k
 */
public record Checkpoint(int bits, int n, int k, int groups, int[] q, int[] zeros, HostTensor scales, int[] group) {
    private static final int[] AWQ_4 = {0, 2, 4, 6, 1, 3, 5, 7};
    private static final int[] AWQ_8 = {0, 2, 1, 3};

    double[] dequantize() {
        var factors = scales.doubles();
        var w = new double[n * k];
        for (var row = 0; row < n; row++) {
            for (var column = 0; column < k; column++) {
                var g = row * groups + group[column];
                w[row * k + column] = (q[row * k + column] - zeros[g]) * factors[g];
            }
        }
        return w;
    }

    // -------------------------------------------------------------------------------------------------- to a format

    /** The tensors of a checkpoint in this format, by the names that cases use. */
    public Map<String, HostTensor> encode(WeightFormat format, boolean withZeros, boolean withOrder) {
        var tensors = new LinkedHashMap<String, HostTensor>();
        var words = 32 / bits;
        switch (format) {
            case GPTQ_V1, GPTQ_V2, GPTQ_AUTO -> {
                var less = format == WeightFormat.GPTQ_V2 ? 0 : 1;
                tensors.put("qweight", pack(k / words, n, (row, column, i) -> q[column * k + row * words + i]));
                tensors.put("qzeros", pack(groups, n / words,
                        (row, column, i) -> zeros[(column * words + i) * groups + row] - less));
                tensors.put("scales", transposed());
                if (withOrder) {
                    tensors.put("g_idx", order());
                }
            }
            case AWQ -> {
                var interleave = bits == 4 ? AWQ_4 : AWQ_8;
                tensors.put("qweight", pack(k, n / words, (row, column, i) -> q[(column * words + interleave[i]) * k + row]));
                tensors.put("qzeros", pack(groups, n / words,
                        (row, column, i) -> zeros[(column * words + interleave[i]) * groups + row]));
                tensors.put("scales", transposed());
            }
            case COMPRESSED_TENSORS -> {
                tensors.put("weight_packed", pack(n, Math.ceilDiv(k, words),
                        (row, column, i) -> column * words + i < k ? q[row * k + column * words + i] : 0));
                tensors.put("weight_scale", scales);
                if (withZeros) {
                    tensors.put("weight_zero_point", pack(Math.ceilDiv(n, words), groups,
                            (row, column, i) -> row * words + i < n ? zeros[(row * words + i) * groups + column] : 0));
                }
                tensors.put("weight_shape", HostTensor.of(DType.I64, new long[] {2}, n, k));
                if (withOrder) {
                    tensors.put("weight_g_idx", order());
                }
            }
            case PLAIN -> {
                tensors.put("q", bytes(q, n, k));
                tensors.put("scales", scales);
                if (withZeros) {
                    tensors.put("zeros", bytes(zeros, n, groups));
                }
                if (withOrder) {
                    tensors.put("g_idx", order());
                }
            }
        }
        return tensors;
    }

    private interface Field {
        int at(int row, int column, int i);
    }

    private HostTensor pack(int rows, int columns, Field field) {
        var words = HostTensor.zeros(DType.I32, rows, columns);
        for (var row = 0; row < rows; row++) {
            for (var column = 0; column < columns; column++) {
                var word = 0;
                for (var i = 0; i < 32 / bits; i++) {
                    word |= (field.at(row, column, i) & (1 << bits) - 1) << i * bits;
                }
                words.set(row * (long) columns + column, word);
            }
        }
        return words;
    }

    private HostTensor transposed() {
        var result = HostTensor.zeros(scales.dtype(), groups, n);
        for (var row = 0; row < n; row++) {
            for (var g = 0; g < groups; g++) {
                result.set(g * (long) n + row, scales.get(row * (long) groups + g));
            }
        }
        return result;
    }

    private HostTensor order() {
        var result = HostTensor.zeros(DType.I32, k);
        for (var i = 0; i < k; i++) {
            result.set(i, group[i]);
        }
        return result;
    }

    static HostTensor bytes(int[] values, long... shape) {
        var result = HostTensor.zeros(DType.U8, shape);
        for (var i = 0; i < values.length; i++) {
            result.set(i, values[i]);
        }
        return result;
    }

    // ------------------------------------------------------------------------------------------------ from a format

    static Checkpoint decode(Problem p, int bits) {
        var group = p.attributes().integer("group", -1);
        var format = p.attributes().oneOf("format", WeightFormat.PLAIN);
        var words = 32 / bits;
        return switch (format) {
            case GPTQ_V1, GPTQ_V2, GPTQ_AUTO -> {
                var n = p.size("qweight", 1);
                var k = p.size("qweight", 0) * words;
                var groups = p.size("scales", 0);
                var weights = p.ints("qweight");
                var stored = p.ints("qzeros");
                var zeros = grid(n, groups, (row, g) -> field(stored[g * (n / words) + row / words], row % words, bits));
                var less = format == WeightFormat.GPTQ_V2 || format == WeightFormat.GPTQ_AUTO && all(zeros, 1 << bits - 1) ? 0 : 1;
                yield new Checkpoint(bits, n, k, groups,
                        grid(n, k, (row, column) -> field(weights[column / words * n + row], column % words, bits)),
                        grid(n, groups, (row, g) -> zeros[row * groups + g] + less),
                        untransposed(p.in("scales"), n, groups), groupsOf(p, "g_idx", k, group));
            }
            case AWQ -> {
                var place = bits == 4 ? AWQ_4 : AWQ_8;
                var inverse = new int[words];
                for (var i = 0; i < words; i++) {
                    inverse[place[i]] = i;
                }
                var columns = p.size("qweight", 1);
                var n = columns * words;
                var k = p.size("qweight", 0);
                var groups = p.size("scales", 0);
                var weights = p.ints("qweight");
                var zeros = p.ints("qzeros");
                yield new Checkpoint(bits, n, k, groups,
                        grid(n, k, (row, at) -> field(weights[at * columns + row / words], inverse[row % words], bits)),
                        grid(n, groups, (row, g) -> field(zeros[g * columns + row / words], inverse[row % words], bits)),
                        untransposed(p.in("scales"), n, groups), groupsOf(p, "g_idx", k, group));
            }
            case COMPRESSED_TENSORS -> {
                var n = (int) p.in("weight_shape").integer(0);
                var k = (int) p.in("weight_shape").integer(1);
                var groups = p.size("weight_scale", 1);
                var columns = p.size("weight_packed", 1);
                var weights = p.ints("weight_packed");
                var zeros = p.has("weight_zero_point") ? p.ints("weight_zero_point") : null;
                yield new Checkpoint(bits, n, k, groups,
                        grid(n, k, (row, column) -> field(weights[row * columns + column / words], column % words, bits)),
                        grid(n, groups, (row, g) -> zeros == null ? 1 << bits - 1
                                : field(zeros[row / words * groups + g], row % words, bits)),
                        p.in("weight_scale"), groupsOf(p, "weight_g_idx", k, group));
            }
            case PLAIN -> {
                var n = p.size("q", 0);
                var k = p.size("q", 1);
                var groups = p.size("scales", 1);
                var q = p.ints("q");
                var zeros = p.has("zeros") ? p.ints("zeros") : null;
                // Signed integers are unsigned ones around the middle.
                var middle = 1 << bits - 1;
                var offset = p.in("q").dtype() == DType.I8 ? middle : 0;
                yield new Checkpoint(bits, n, k, groups, grid(n, k, (row, column) -> q[row * k + column] + offset),
                        grid(n, groups, (row, g) -> zeros == null ? middle : zeros[row * groups + g] + offset),
                        p.in("scales"), groupsOf(p, "g_idx", k, group));
            }
        };
    }

    private interface Cell {
        int at(int row, int column);
    }

    private static int[] grid(int rows, int columns, Cell cell) {
        var values = new int[rows * columns];
        for (var row = 0; row < rows; row++) {
            for (var column = 0; column < columns; column++) {
                values[row * columns + column] = cell.at(row, column);
            }
        }
        return values;
    }

    private static int field(int word, int i, int bits) {
        return word >>> i * bits & (1 << bits) - 1;
    }

    private static boolean all(int[] values, int expected) {
        for (var value : values) {
            if (value != expected) {
                return false;
            }
        }
        return true;
    }

    private static HostTensor untransposed(HostTensor scales, int n, int groups) {
        var result = HostTensor.zeros(scales.dtype(), n, groups);
        for (var row = 0; row < n; row++) {
            for (var g = 0; g < groups; g++) {
                result.set(row * (long) groups + g, scales.get(g * (long) n + row));
            }
        }
        return result;
    }

    private static int[] groupsOf(Problem p, String order, int k, int group) {
        if (p.has(order)) {
            return p.ints(order);
        }
        var groups = new int[k];
        for (var i = 0; i < k; i++) {
            groups[i] = group > 0 ? i / group : 0;
        }
        return groups;
    }
}
