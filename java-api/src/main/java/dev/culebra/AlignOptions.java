package dev.culebra;

/**
 * How slots are listed by expert. Immutable; start from {@link #of}.
 *
 * @param experts that ids name
 * @param localExperts how many of them this device computes; all of them without an expert map
 * @param block the entries of a block, which has one expert: 8, 16, 32, 64 or 128
 */
public record AlignOptions(int experts, int localExperts, int block) {
    /** All experts are local. */
    public static AlignOptions of(int experts, int block) {
        return new AlignOptions(experts, experts, block);
    }

    /** With so many local experts, which an expert map names. */
    public AlignOptions withLocalExperts(int value) {
        return new AlignOptions(experts, value, block);
    }

    /** The length of {@link ExpertAlignment#sorted} for so many slots. */
    public long capacity(long slots) {
        return Math.ceilDiv(slots + (long) localExperts * (block - 1), block) * block;
    }
}
