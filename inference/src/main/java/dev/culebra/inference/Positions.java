package dev.culebra.inference;

import dev.culebra.RotaryTables;
import dev.culebra.Tensor;

/** Where the tokens of a pass stand in their sequence. */
sealed interface Positions {
    /** i64 [T], also the slots of the cache, since its pages lie in order. */
    Tensor ids();

    /** Tables of all positions. */
    RotaryTables rotary();

    /**
     * One pass over many tokens, whose place is known when it is bound.
     *
     * @param length tokens of the sequence, those of the pass included
     * @param cuQ i32 [2]: 0 and T
     * @param cuK i32 [2]: 0 and the length
     */
    record Fixed(Tensor ids, RotaryTables rotary, long length, Tensor cuQ, Tensor cuK) implements Positions {}

    /**
     * A pass that runs again and again, a token later each time: its place is in device memory.
     *
     * @param length i32 [1]: tokens of the sequence, those of the pass included
     * @param pageTable i32 [1, P]: the pages in order
     */
    record Moving(Tensor ids, RotaryTables rotary, Tensor length, Tensor pageTable) implements Positions {}
}
