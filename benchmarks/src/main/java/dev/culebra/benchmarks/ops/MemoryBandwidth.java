package dev.culebra.benchmarks.ops;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Threads;
import org.openjdk.jmh.infra.ThreadParams;

/** How fast memory is: the limit of an operator that has little more to do than to read it. */
@BenchmarkMode(Mode.Throughput)
@OutputTimeUnit(TimeUnit.SECONDS)
public class MemoryBandwidth {
    /** The bytes that one {@link #read} moves. */
    public static final long READ_BYTES = 16L << 20;

    /** The bytes that one {@link #copy} moves, read and written. */
    public static final long COPY_BYTES = 1L << 30;

    private static final long HOST_BYTES = 512L << 20;

    /** A thread's part of memory far larger than the caches. */
    @State(Scope.Thread)
    public static class Part {
        private static final int BLOCK = (int) (READ_BYTES / Long.BYTES);

        private long[] words;
        private int next;

        /** Writes all of it: memory that was never touched is not there yet. */
        @Setup
        public void fill(ThreadParams threads) {
            words = new long[(int) Math.ceilDiv(HOST_BYTES / READ_BYTES, threads.getThreadCount()) * BLOCK];
            Arrays.setAll(words, i -> i);
        }

        long sumOfNextBlock() {
            var from = next;
            next = (next + BLOCK) % words.length;
            var sum = 0L;
            for (var i = from; i < from + BLOCK; i++) {
                sum += words[i];
            }
            return sum;
        }
    }

    /** Two buffers of a device. */
    @State(Scope.Benchmark)
    public static class Buffers {
        /** The backend's name. */
        @Param("cpu")
        public String backend;

        private Device device;
        private Stream stream;
        private Tensor source;
        private Tensor target;

        /** Opens the device. */
        @Setup
        public void open() {
            device = Device.open(backend);
            stream = device.openStream();
            var scope = device.openScope();
            source = scope.zeros(stream, DType.U8, COPY_BYTES / 2);
            target = scope.zeros(stream, DType.U8, COPY_BYTES / 2);
        }

        /** Closes it. */
        @TearDown
        public void close() {
            device.close();
        }
    }

    /** All threads read host memory, each its part: the limit on cpu. */
    @Benchmark
    @Threads(Threads.MAX)
    public long read(Part part) {
        return part.sumOfNextBlock();
    }

    /** A copy within the device's memory: the limit on cuda. */
    @Benchmark
    public void copy(Buffers buffers) {
        buffers.target.copyFrom(buffers.stream, buffers.source);
        buffers.stream.synchronize();
    }
}
