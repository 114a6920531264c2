package dev.culebra.benchmarks.calls;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.generated.culebra_h;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.TearDown;

/** Through JNI, to the same functions of the same library: as {@link Bindings}, nothing is checked before the C ABI. */
public class Jni extends Calls {
    /** The backend's name. */
    @Param("cpu")
    public String backend;

    private NativeOperands on;
    private long stream;
    private long x;
    private long weight;
    private long y;
    private long temperature;
    private long topK;
    private long topP;
    private long minP;
    private long seed;
    private long position;
    private long ids;

    /** Opens a device and makes the operands. */
    @Setup
    public void open() {
        on = new NativeOperands(backend);
        stream = on.stream.address();
        x = on.x.address();
        weight = on.weight.address();
        y = on.y.address();
        temperature = on.temperature.address();
        topK = on.topK.address();
        topP = on.topP.address();
        minP = on.minP.address();
        seed = on.seed.address();
        position = on.position.address();
        ids = on.ids.address();
    }

    /** Closes the device. */
    @TearDown
    public void close() {
        on.close();
    }

    @Benchmark
    public int noop() {
        return JniTwin.abiVersion();
    }

    @Benchmark
    public boolean query() {
        var done = JniTwin.streamQuery(stream);
        Native.check(Math.max(0, -done));
        return done != 0;
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void rmsNormChecked() {
        rmsNorms(culebra_h.CUL_OP_PLAN_ONLY());
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void sampleChecked() {
        samples(culebra_h.CUL_OP_PLAN_ONLY());
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void rmsNorm() {
        rmsNorms(0);
        on.synchronize();
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void sample() {
        samples(0);
        on.synchronize();
    }

    private void rmsNorms(int flags) {
        for (var i = 0; i < CALLS; i++) {
            Native.check(JniTwin.rmsNorm(stream, flags, x, weight, 0, y, 0, EPS, false));
        }
    }

    private void samples(int flags) {
        for (var i = 0; i < CALLS; i++) {
            Native.check(JniTwin.sample(stream, flags, x, temperature, topK, topP, minP, seed, position, ids, 0));
        }
    }

    NativeOperands operands() {
        return on;
    }
}
