package dev.culebra;

/**
 * Rows for ranks, as {@link Ops#moeDispatch} writes them: rank r's are those from {@code r capacity} on.
 *
 * @param rows [ranks capacity, D] as x
 * @param rowIds i32 [ranks capacity]: the number, among its rank's experts, of the one that a row is for; -1: there is no row
 * @param inverse i32 [T k]: a slot's row; -1: skipped, -2: there was no room
 * @param counts i32 [ranks]: the slots of each rank, those without room included
 */
public record ExpertRows(Tensor rows, Tensor rowIds, Tensor inverse, Tensor counts) {
    /** Room for so many rows of each rank. */
    public static ExpertRows allocate(Scope scope, DType dtype, int ranks, int capacity, long width, long slots) {
        var rows = (long) ranks * capacity;
        return new ExpertRows(scope.allocate(dtype, rows, width), scope.allocate(DType.I32, rows),
                scope.allocate(DType.I32, slots), scope.allocate(DType.I32, ranks));
    }
}
