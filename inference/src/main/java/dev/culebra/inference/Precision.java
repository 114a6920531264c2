package dev.culebra.inference;

import dev.culebra.DType;

/**
 * The number types that models compute in. A router near a tie sends a token to another expert for an error in the fourth
 * digit, and one such token moves logits by 0.1: measured on the sample model with the residual stream in f16, a greedy token
 * with a margin of 0.053 flipped, and in bf16 three of them did. So everything that is not multiplied by four-bit weights
 * or by experts stays in f32. Those products take f16, whose eleven digits keep activations behind a norm closer than bf16.
 */
final class Precision {
    /** Of the residual stream, of states and caches, and of products with dense weights. */
    static final DType STREAM = DType.F32;

    /** Of the operands of products with packed weights and with experts. */
    static final DType HALF = DType.F16;

    private Precision() {}
}
