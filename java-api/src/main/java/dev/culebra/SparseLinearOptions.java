package dev.culebra;

/**
 * Attributes of {@link Ops#sparseLinearAttention}. Immutable; start from {@link #DEFAULT}.
 *
 * @param block tokens of a block of queries or keys, a multiple of 16 from 16 to 128
 * @param critical share of the key blocks that get softmax attention, 0 to 1, at least one block
 * @param negligible share of them that get none, 0 to 1
 * @param phi the feature map of the linear part
 * @param mode which blocks the linear part has
 * @param eps added to the linear part's denominator
 * @param scale of the scores; 0 = D^-1/2
 */
public record SparseLinearOptions(int block, double critical, double negligible, Phi phi, Mode mode, float eps, float scale) {
    /** Feature maps. */
    public enum Phi {
        /** Softmax over the D channels. */
        SOFTMAX,
        /** x + 1 for x > 0, else e^x. */
        ELU1,
        /** The larger of x and 0. */
        RELU
    }

    /** Which key blocks the linear part has. */
    public enum Mode {
        /** Those that are neither critical nor negligible. */
        PAPER,
        /** All that are not critical. */
        COMPLEMENT,
        /** All. */
        ALL
    }

    /** Blocks of 64, 5% critical, 10% negligible, as the paper has them. */
    public static final SparseLinearOptions DEFAULT = new SparseLinearOptions(64, 0.05, 0.10, Phi.SOFTMAX, Mode.PAPER, 1e-5f, 0);

    /** Other shares. */
    public SparseLinearOptions withShares(double critical, double negligible) {
        return new SparseLinearOptions(block, critical, negligible, phi, mode, eps, scale);
    }

    /** Blocks of another size. */
    public SparseLinearOptions withBlock(int value) {
        return new SparseLinearOptions(value, critical, negligible, phi, mode, eps, scale);
    }

    /** Another linear part. */
    public SparseLinearOptions withLinear(Phi map, Mode blocks) {
        return new SparseLinearOptions(block, critical, negligible, map, blocks, eps, scale);
    }
}
