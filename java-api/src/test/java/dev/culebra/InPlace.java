package dev.culebra;

/** Arithmetic in place on f32 [1, n], of operators that allow it. */
final class InPlace {
    private final Tensor gate;
    private final Tensor weight;
    private final Tensor scratch;

    InPlace(Scope scope, Stream stream, int n) {
        gate = scope.zeros(stream, DType.F32, 1, n);
        weight = scope.zeros(stream, DType.F32, n);
        scratch = scope.zeros(stream, DType.F32, 1, n);
    }

    /** {@code x *= sigmoid(0)}. */
    void halve(Stream stream, Tensor x) {
        Ops.sigmoidMul(stream, x, gate, x);
    }

    /** {@code y += x}. */
    void add(Stream stream, Tensor x, Tensor y) {
        Ops.rmsNorm(stream, x, weight, y, scratch, y, 1, false);
    }
}
