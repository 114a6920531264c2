package dev.culebra.inference;

import dev.culebra.Tensor;

/** The half of a layer that treats each token by itself. */
sealed interface FeedForward permits Mlp, SparseMoe {
    /** Appends it: x [T, D] to y [T, D]. */
    void bind(ForwardPass pass, Tensor x, Tensor y);
}
