package dev.culebra;

import dev.culebra.bindings.generated.cul_memory_stats;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;

/** A device's memory: statistics, limit, and giving pooled memory back. */
public final class Memory {
    private final Device device;

    Memory(Device device) {
        this.device = device;
    }

    /** The memory at this moment. */
    public MemoryStatistics statistics() {
        device.pending().settle();
        try (var arena = Arena.ofConfined()) {
            var stats = arena.allocate(cul_memory_stats.layout());
            cul_memory_stats.struct_size(stats, (int) stats.byteSize());
            device.call("memory_get_stats", handle -> culebra_h.cul_memory_get_stats(handle, stats));
            return new MemoryStatistics(
                    cul_memory_stats.used_bytes(stats),
                    cul_memory_stats.reserved_bytes(stats),
                    cul_memory_stats.peak_used_bytes(stats),
                    cul_memory_stats.limit_bytes(stats),
                    cul_memory_stats.allocations(stats),
                    cul_memory_stats.live_allocations(stats),
                    cul_memory_stats.host_bytes(stats));
        }
    }

    /**
     * Limits what may be handed out; what already is stays.
     *
     * @param bytes the limit; 0 = none
     */
    public void limit(long bytes) {
        checkLimit(bytes, device.backend());
        device.call("memory_set_limit", handle -> culebra_h.cul_memory_set_limit(handle, bytes));
    }

    static void checkLimit(long bytes, Backend backend) {
        if (bytes < 0) {
            throw new ArgumentException(Status.RANGE, null, backend, "a memory limit of " + bytes + " bytes; 0 means none");
        }
    }

    /** Gives pooled memory that is not in use back to the system, all but {@code keepBytes}. */
    public void trim(long keepBytes) {
        if (keepBytes < 0) {
            throw new ArgumentException(Status.RANGE, null, device.backend(), "trim: " + keepBytes
                    + " bytes to keep; it must be 0 or more");
        }
        device.pending().settle();
        device.call("memory_trim", handle -> culebra_h.cul_memory_trim(handle, keepBytes));
    }
}
