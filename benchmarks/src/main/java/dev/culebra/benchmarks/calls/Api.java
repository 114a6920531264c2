package dev.culebra.benchmarks.calls;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.DeviceOptions;
import dev.culebra.Graph;
import dev.culebra.Ops;
import dev.culebra.Plan;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.TearDown;

/**
 * Through the Java API: lifetimes, devices, ownership of the stream and arguments are all checked. The checked calls
 * also fetch the plan's text from the library, which nothing but {@link Stream#plan} does.
 */
public class Api extends Calls {
    /** The backend's name. */
    @Param("cpu")
    public String backend;

    private Device device;
    private Stream stream;
    private Tensor y;
    private Tensor ids;
    private Runnable rmsNorms;
    private Runnable samples;
    private Graph rmsNormGraph;
    private Graph sampleGraph;

    /** Opens a device and makes the operands. */
    @Setup
    public void open() {
        device = Device.open(backend, DeviceOptions.DEFAULT.withThreads(1));
        stream = device.openStream();
        var scope = device.openScope();
        var x = scope.floats(stream, X, 1, X.length);
        var weight = scope.floats(stream, WEIGHT, WEIGHT.length);
        y = scope.allocate(DType.F32, 1, X.length);
        var temperature = scope.floats(stream, TEMPERATURE, 1);
        var topK = scope.ints(stream, TOP_K, 1);
        var topP = scope.floats(stream, TOP_P, 1);
        var minP = scope.floats(stream, MIN_P, 1);
        var seed = scope.longs(stream, SEED, 1);
        var position = scope.longs(stream, POSITION, 1);
        ids = scope.allocate(DType.I32, 1);
        rmsNorms = () -> {
            for (var i = 0; i < CALLS; i++) {
                Ops.rmsNorm(stream, x, weight, null, y, null, EPS, false);
            }
        };
        samples = () -> {
            for (var i = 0; i < CALLS; i++) {
                Ops.sample(stream, x, temperature, topK, topP, minP, seed, position, ids, null);
            }
        };
        capture();
    }

    private void capture() {
        rmsNorm();
        sample();
        rmsNormGraph = stream.capture(rmsNorms);
        sampleGraph = stream.capture(samples);
    }

    /** Closes the device and all that was made on it. */
    @TearDown
    public void close() {
        device.close();
    }

    @Benchmark
    public boolean query() {
        return stream.isDone();
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public Plan rmsNormChecked() {
        return stream.plan(rmsNorms);
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public Plan sampleChecked() {
        return stream.plan(samples);
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void rmsNorm() {
        rmsNorms.run();
        stream.synchronize();
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void sample() {
        samples.run();
        stream.synchronize();
    }

    /** As {@link #rmsNorm}, captured and launched. */
    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void rmsNormGraph() {
        rmsNormGraph.launch(stream);
        stream.synchronize();
    }

    /** As {@link #sample}, captured and launched. */
    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void sampleGraph() {
        sampleGraph.launch(stream);
        stream.synchronize();
    }

    float[] normalised() {
        return y.floats(stream);
    }

    int drawn() {
        return ids.ints(stream)[0];
    }
}
