package dev.culebra;

/**
 * A device's memory at one moment.
 *
 * @param usedBytes handed out and not yet freed; a queued free counts until its stream passes it
 * @param reservedBytes taken from the system: used, and what the pool keeps
 * @param peakUsedBytes the most that was ever used at once
 * @param limitBytes the limit; 0 = none
 * @param allocations made since the device was opened
 * @param liveAllocations those not yet freed
 * @param hostBytes pinned host memory handed out
 */
public record MemoryStatistics(
        long usedBytes,
        long reservedBytes,
        long peakUsedBytes,
        long limitBytes,
        long allocations,
        long liveAllocations,
        long hostBytes) {}
