package dev.culebra.inference;

import dev.culebra.Activation;
import dev.culebra.Epilogue;
import dev.culebra.Ops;
import dev.culebra.PackedWeights;
import dev.culebra.Tensor;
import java.util.List;

/** {@code y = x w^T} over rows of the residual stream's type, with w [N, K] dense, in four bits, or stacked of both. */
sealed interface Linear {
    /** N, the width of y. */
    long outputs();

    /** Appends the product. x [T, K], y [T, N]; both may be slices of columns. */
    void bind(ForwardPass pass, Tensor x, Tensor y);

    /** Weights of the stream's type. */
    record Dense(Tensor weight) implements Linear {
        @Override
        public long outputs() {
            return weight.size(0);
        }

        @Override
        public void bind(ForwardPass pass, Tensor x, Tensor y) {
            pass.then(stream -> Ops.gemm(stream, x, weight, null, y, Activation.NONE));
        }
    }

    /** Four-bit weights: operands and result of the product are of {@link Precision#HALF}. */
    record Packed(PackedWeights weights) implements Linear {
        @Override
        public long outputs() {
            return weights.n();
        }

        @Override
        public void bind(ForwardPass pass, Tensor x, Tensor y) {
            try (var frame = pass.frame()) {
                var halfX = frame.take(Precision.HALF, x.shape());
                var halfY = frame.take(Precision.HALF, y.shape());
                pass.then(stream -> Ops.cast(stream, x, halfX));
                pass.then(stream -> Ops.w4a16Gemm(stream, halfX, weights, null, halfY, Epilogue.NONE));
                pass.then(stream -> Ops.cast(stream, halfY, y));
            }
        }
    }

    /** Matrices over the same K, one below the other. */
    record Stacked(List<Linear> parts) implements Linear {
        @Override
        public long outputs() {
            return parts.stream().mapToLong(Linear::outputs).sum();
        }

        @Override
        public void bind(ForwardPass pass, Tensor x, Tensor y) {
            var from = 0L;
            for (var part : parts) {
                part.bind(pass, x, y.slice(1, from, from + part.outputs()));
                from += part.outputs();
            }
        }
    }
}
