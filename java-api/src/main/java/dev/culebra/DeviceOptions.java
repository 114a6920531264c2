package dev.culebra;

/**
 * How a device is opened. Immutable; start from {@link #DEFAULT}.
 *
 * @param threads cpu: threads of one parallel loop; 0 = every core the process may use
 * @param memoryLimitBytes the most memory that may be handed out; 0 = no limit
 * @param poison fills fresh memory with 0xFF, which is NaN in every float type; simt always does
 * @param schedule simt: the order in which emulated threads run
 * @param seed simt: of the random schedule
 */
public record DeviceOptions(int threads, long memoryLimitBytes, boolean poison, Schedule schedule, long seed) {
    /** The order in which simt runs the threads of a block. */
    public enum Schedule {
        /** By thread number. */
        IN_ORDER,
        /** By descending thread number. */
        REVERSE,
        /** At random, from the seed. */
        RANDOM
    }

    /** Every core, no limit, no poison, in order. */
    public static final DeviceOptions DEFAULT = new DeviceOptions(0, 0, false, Schedule.IN_ORDER, 0);

    /** Another number of threads. */
    public DeviceOptions withThreads(int value) {
        return new DeviceOptions(value, memoryLimitBytes, poison, schedule, seed);
    }

    /** Another memory limit. */
    public DeviceOptions withMemoryLimitBytes(long value) {
        return new DeviceOptions(threads, value, poison, schedule, seed);
    }

    /** With fresh memory poisoned or not. */
    public DeviceOptions withPoison(boolean value) {
        return new DeviceOptions(threads, memoryLimitBytes, value, schedule, seed);
    }

    /** Another schedule of emulated threads. */
    public DeviceOptions withSchedule(Schedule value) {
        return new DeviceOptions(threads, memoryLimitBytes, poison, value, seed);
    }

    /** Another seed of the random schedule. */
    public DeviceOptions withSeed(long value) {
        return new DeviceOptions(threads, memoryLimitBytes, poison, schedule, value);
    }
}
