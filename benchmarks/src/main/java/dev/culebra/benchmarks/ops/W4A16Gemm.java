package dev.culebra.benchmarks.ops;

import dev.culebra.CheckpointWeights;
import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.Epilogue;
import dev.culebra.Ops;
import dev.culebra.PackedWeights;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.WeightFormat;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/**
 * {@link Ops#w4a16Gemm} on f16 activations and int4 weights of group {@value #GROUP}. The weights rotate over
 * more than the caches hold, so that each call reads its own from memory: its least time is {@link #leastBytes} over the
 * bandwidth of {@link MemoryBandwidth}. An invocation queues {@value #CALLS} calls and waits. The first result is checked
 * against sums in double, the last one against the first.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.SampleTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
public class W4A16Gemm {
    static final int GROUP = 128;
    static final int CALLS = 10;
    private static final int SAMPLES = 200;
    private static final double BOUND = 2e-3; // the contract's: rms of the error over rms of the result, f16
    private static final int ZERO = 8;

    /** The backend's name. */
    @Param("cpu")
    public String backend;

    /** Rows of activations. */
    @Param({"1", "16"})
    public int m;

    /** Output features. */
    @Param("4096")
    public int n;

    /** Input features. */
    @Param("14336")
    public int k;

    long rotatedBytes = 256L << 20;

    private Device device;
    Stream stream;
    private PackedWeights[] weights;
    private int next;
    private Tensor a;
    Tensor c;
    private byte[] expected;

    /** The bytes that one call must read and write: weights, scales, activations, result. */
    public static long leastBytes(long m, long n, long k) {
        return n * k / 2 + n * (k / GROUP) * DType.F16.bytes() + m * (k + n) * DType.F16.bytes();
    }

    /** Packs the weights as often as the rotation needs them, and checks a result. */
    @Setup
    public void open() {
        device = Device.open(backend);
        stream = device.openStream();
        var random = new Random(1);
        var codes = new byte[n * k];
        random.nextBytes(codes);
        for (var i = 0; i < codes.length; i++) {
            codes[i] &= 15;
        }
        var scales = new float[n * (k / GROUP)];
        for (var i = 0; i < scales.length; i++) {
            scales[i] = Float.float16ToFloat(Float.floatToFloat16(0.002f + 0.00001f * random.nextInt(256)));
        }
        var activations = new float[m * k];
        for (var i = 0; i < activations.length; i++) {
            activations[i] = Float.float16ToFloat(Float.floatToFloat16((float) random.nextGaussian()));
        }

        var scope = device.openScope();
        a = scope.floats(stream, DType.F16, activations, m, k);
        c = scope.allocate(DType.F16, m, n);
        var copies = Math.toIntExact(Math.ceilDiv(rotatedBytes, (long) n * k / 2));
        weights = new PackedWeights[copies];
        try (var loading = device.openScope()) {
            var q = loading.allocate(DType.U8, n, k);
            q.setBytes(stream, codes);
            var s = loading.floats(stream, DType.F16, scales, n, k / GROUP);
            var checkpoint = CheckpointWeights.of(WeightFormat.PLAIN, 4, GROUP, q, s, null, null);
            Arrays.setAll(weights, copy -> Ops.packWeights(stream, scope, checkpoint));
        }

        call();
        check(c.floats(stream), activations, codes, scales);
        expected = c.bytes(stream);
    }

    private void check(float[] result, float[] activations, byte[] codes, float[] scales) {
        var random = new Random(5);
        var error = 0.0;
        var reference = 0.0;
        for (var sample = 0; sample < SAMPLES; sample++) {
            var row = random.nextInt(m);
            var column = random.nextInt(n);
            var sum = 0.0;
            for (var i = 0; i < k; i++) {
                var scale = scales[column * (k / GROUP) + i / GROUP];
                sum += activations[row * k + i] * (double) scale * (codes[column * k + i] - ZERO);
            }
            error += Math.pow(result[row * n + column] - sum, 2);
            reference += sum * sum;
        }
        var ratio = Math.sqrt(error / reference);
        if (!(ratio <= BOUND)) {
            throw new IllegalStateException("w4a16_gemm M " + m + " N " + n + " K " + k + ": rms ratio " + ratio + " is beyond " + BOUND);
        }
    }

    /** Checks the last result and closes the device. */
    @TearDown
    public void close() {
        var last = c.bytes(stream);
        device.close();
        if (!Arrays.equals(last, expected)) {
            throw new IllegalStateException("w4a16_gemm: the last result differs from the first one, of equal operands");
        }
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void w4a16Gemm() {
        for (var i = 0; i < CALLS; i++) {
            call();
        }
        stream.synchronize();
    }

    private void call() {
        Ops.w4a16Gemm(stream, a, weights[next], null, c, Epilogue.NONE);
        next = (next + 1) % weights.length;
    }
}
