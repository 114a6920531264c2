package dev.culebra;

/**
 * What a device is.
 *
 * @param backend its backend
 * @param index its number within the backend
 * @param name the processor's or GPU's name
 * @param detail cpu: the instruction set in use; cuda: driver and runtime versions; simt: the checks in force
 * @param computeMajor cuda: compute capability; simt: what it emulates; cpu: 0
 * @param computeMinor see {@code computeMajor}
 * @param multiprocessors cuda, simt: streaming multiprocessors; cpu: threads
 * @param sharedBytesPerBlock shared memory that one thread block may use
 * @param l2Bytes second-level cache
 * @param memoryBytes all memory of the device
 */
public record DeviceInfo(
        Backend backend,
        int index,
        String name,
        String detail,
        int computeMajor,
        int computeMinor,
        int multiprocessors,
        int sharedBytesPerBlock,
        long l2Bytes,
        long memoryBytes) {}
