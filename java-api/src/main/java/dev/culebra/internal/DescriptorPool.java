package dev.culebra.internal;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;

/**
 * Native slots for tensor descriptors. A slot is taken when a tensor is made and comes back when no call can be reading
 * it any more; slabs live as long as the pool or one of their slots is reachable. A slot holds a {@code cul_tensor} and
 * the extents and strides that it points to.
 */
public final class DescriptorPool {
    /** The largest rank of a tensor. */
    public static final int MAX_RANK = 8;

    /** Offset of the extents in a slot. The strides follow. */
    public static final long SHAPE_OFFSET_BYTES = 48;

    /** Offset of the strides in a slot. */
    public static final long STRIDES_OFFSET_BYTES = SHAPE_OFFSET_BYTES + 8 * MAX_RANK;

    private static final long SLOT_BYTES = STRIDES_OFFSET_BYTES + 8 * MAX_RANK;
    private static final int SLOTS_IN_SLAB = 64;

    private final ArrayDeque<MemorySegment> free = new ArrayDeque<>();

    /** A slot with unspecified contents. */
    public synchronized MemorySegment take() {
        if (free.isEmpty()) {
            var slab = Arena.ofAuto().allocate(SLOT_BYTES * SLOTS_IN_SLAB, 16);
            for (var i = 0; i < SLOTS_IN_SLAB; i++) {
                free.add(slab.asSlice(i * SLOT_BYTES, SLOT_BYTES));
            }
        }
        return free.pop();
    }

    /** Gives a slot back that {@link #take} handed out. */
    public synchronized void give(MemorySegment slot) {
        free.push(slot);
    }
}
