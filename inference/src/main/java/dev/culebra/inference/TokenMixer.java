package dev.culebra.inference;

import dev.culebra.Scope;
import dev.culebra.Tensor;

/** The half of a layer in which tokens see those before them. */
sealed interface TokenMixer permits GatedDeltaNet, GatedAttention {
    /** A cache for one sequence of so many pages of tokens. */
    LayerCache allocateCache(Scope scope, int pages);

    /** Appends the mixer, with a cache of its own making: x [T, D] to y [T, D]. */
    void bind(ForwardPass pass, Tensor x, Tensor y, LayerCache cache, Positions positions);
}
