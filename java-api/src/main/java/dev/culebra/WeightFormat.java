package dev.culebra;

import java.util.Locale;

/** How a checkpoint stores quantized weights. */
public enum WeightFormat {
    /** q [N, K], one integer a byte; scales [N, G], zeros [N, G]. */
    PLAIN,
    /** GPTQ, whose stored zero points are one less than they mean. */
    GPTQ_V1,
    /** GPTQ with zero points as they are. */
    GPTQ_V2,
    /** GPTQ; which of the two is read off the zero points. */
    GPTQ_AUTO,
    /** AWQ. */
    AWQ,
    /** The packed format of compressed-tensors. */
    COMPRESSED_TENSORS;

    /** {@code gptq_v1}, {@code compressed_tensors}, ... */
    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
