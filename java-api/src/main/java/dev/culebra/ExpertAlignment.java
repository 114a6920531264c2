package dev.culebra;

/**
 * Slots (slot = t k + j) listed by the local expert that computes them, in ascending order within one: what {@link
 * Ops#moeAlign} writes.
 *
 * @param sorted i32 [C]: each expert's slots padded to whole blocks with T k; T k also beyond nPadded
 * @param blockExpert i32 [C / block]: the expert of each block of sorted, -1 beyond nPadded
 * @param offsets i64 [localExperts + 1]: where an expert's slots begin in the order without padding
 * @param inverse i32 [T k]: where a slot stands in the order without padding; -1 for skipped ones
 * @param nPadded i32 [1]: how many entries of sorted are in use
 */
public record ExpertAlignment(Tensor sorted, Tensor blockExpert, Tensor offsets, Tensor inverse, Tensor nPadded) {
    /** Room for {@code slots} slots. */
    public static ExpertAlignment allocate(Scope scope, long slots, AlignOptions options) {
        var capacity = options.capacity(slots);
        return new ExpertAlignment(
                scope.allocate(DType.I32, capacity),
                scope.allocate(DType.I32, capacity / options.block()),
                scope.allocate(DType.I64, options.localExperts() + 1L),
                scope.allocate(DType.I32, slots),
                scope.allocate(DType.I32, 1));
    }
}
