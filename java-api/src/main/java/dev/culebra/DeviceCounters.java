package dev.culebra;

/**
 * What a device's streams have done since it was opened.
 *
 * @param operators operator calls that were queued, by themselves or by {@link Prepared#run}; those that a graph repeats
 *     do not count
 * @param copies copies between host and device, and within the device
 * @param copiedBytes their bytes
 * @param graphLaunches launches of graphs
 * @param preparedRuns runs of prepared calls
 * @param waits waits of a thread for a stream
 * @param waitedNanos time that threads spent in them
 */
public record DeviceCounters(
        long operators, long copies, long copiedBytes, long graphLaunches, long preparedRuns, long waits, long waitedNanos) {

    /** Counts that one thread at a time adds to, and any thread reads. */
    static final class Sum {
        long operators;
        long copies;
        long copiedBytes;
        long graphLaunches;
        long preparedRuns;
        long waits;
        long waitedNanos;

        void add(Sum other) {
            operators += other.operators;
            copies += other.copies;
            copiedBytes += other.copiedBytes;
            graphLaunches += other.graphLaunches;
            preparedRuns += other.preparedRuns;
            waits += other.waits;
            waitedNanos += other.waitedNanos;
        }

        DeviceCounters get() {
            return new DeviceCounters(operators, copies, copiedBytes, graphLaunches, preparedRuns, waits, waitedNanos);
        }
    }
}
