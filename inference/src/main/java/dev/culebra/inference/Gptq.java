package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.WeightFormat;
import org.jspecify.annotations.Nullable;

/** The four tensors of a matrix in GPTQ's layout, four bits: checks and readings that all users of it share. */
final class Gptq {
    /** Weights of one 32-bit word. */
    static final int PER_WORD = 8;

    private Gptq() {}

    /** If the matrix is stored quantized. */
    static boolean has(Checkpoint checkpoint, String name) {
        return checkpoint.contains(name + ".qweight");
    }

    /** Refuses a quantized matrix [n, k] that is not whole, or a config that does not say how it is quantized. */
    static void check(
            Checkpoint checkpoint, ModelConfig.@Nullable Quantization quantization, String name, long n, long k) {
        if (quantization == null) {
            throw checkpoint.error(name + ".qweight", "is quantized but the config has no quantization_config");
        }
        if (n % PER_WORD != 0 || k % PER_WORD != 0) {
            throw checkpoint.error(name + ".qweight", "holds a matrix [" + n + ", " + k + "]; both must be multiples of " + PER_WORD);
        }
        var groups = groups(quantization.groupSize(), k);
        checkpoint.check(name + ".qweight", new long[] {k / PER_WORD, n}, DType.I32);
        checkpoint.check(name + ".qzeros", new long[] {groups, n / PER_WORD}, DType.I32);
        checkpoint.check(name + ".scales", new long[] {groups, n}, DType.F16);
        if (checkpoint.contains(name + ".g_idx")) {
            checkpoint.check(name + ".g_idx", new long[] {k}, DType.I32);
        }
    }

    static long groups(int groupSize, long k) {
        return groupSize < 0 ? 1 : Math.ceilDiv(k, groupSize);
    }

    static WeightFormat format(ModelConfig.Quantization quantization) {
        return quantization.v2() ? WeightFormat.GPTQ_V2 : WeightFormat.GPTQ_V1;
    }

    /** The group of each k where it is another than k / group (act-order), else null. */
    static int @Nullable [] reordered(Checkpoint checkpoint, Stream stream, Scope reading, String name, int groupSize) {
        if (!checkpoint.contains(name + ".g_idx")) {
            return null;
        }
        var groups = checkpoint.load(stream, reading, name + ".g_idx").ints(stream);
        for (var k = 0; k < groups.length; k++) {
            if (groups[k] != (groupSize < 0 ? 0 : k / groupSize)) {
                return groups;
            }
        }
        return null;
    }
}
