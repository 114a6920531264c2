package dev.culebra.benchmarks.calls;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.DeviceOptions;
import dev.culebra.Ops;
import dev.culebra.Prepared;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.bindings.Native;
import dev.culebra.bindings.generated.cul_batch_call;
import dev.culebra.bindings.generated.cul_op_call;
import dev.culebra.bindings.generated.cul_rms_norm_args;
import dev.culebra.bindings.generated.cul_sample_args;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.TearDown;

/**
 * All calls of an invocation in one native call: those that run through the API's prepared calls, those that are only checked
 * through {@code cul_batch}.
 */
public class Batch extends Calls {
    /** The backend's name. */
    @Param("cpu")
    public String backend;

    /** Kept reachable: the calls hold addresses alone. */
    private final List<MemorySegment> arguments = new ArrayList<>();

    private final MemorySegment done = Arena.ofAuto().allocate(ValueLayout.JAVA_LONG);
    private NativeOperands on;
    private MemorySegment rmsNormsChecked;
    private MemorySegment samplesChecked;
    private Device device;
    private Stream stream;
    private Tensor y;
    private Tensor ids;
    private Prepared rmsNorms;
    private Prepared samples;

    /** Opens devices, makes the operands and prepares the calls. */
    @Setup
    public void open() {
        on = new NativeOperands(backend);
        rmsNormsChecked = checked(rmsNormArgs(on), culebra_h.cul_rms_norm$address());
        samplesChecked = checked(sampleArgs(on), culebra_h.cul_sample$address());
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
        rmsNorms = stream.prepare(() -> {
            for (var i = 0; i < CALLS; i++) {
                Ops.rmsNorm(stream, x, weight, null, y, null, EPS, false);
            }
        });
        samples = stream.prepare(() -> {
            for (var i = 0; i < CALLS; i++) {
                Ops.sample(stream, x, temperature, topK, topP, minP, seed, position, ids, null);
            }
        });
    }

    private static MemorySegment rmsNormArgs(NativeOperands on) {
        var args = Arena.ofAuto().allocate(cul_rms_norm_args.layout());
        cul_rms_norm_args.x(args, on.x);
        cul_rms_norm_args.weight(args, on.weight);
        cul_rms_norm_args.y(args, on.y);
        cul_rms_norm_args.eps(args, EPS);
        return args;
    }

    private static MemorySegment sampleArgs(NativeOperands on) {
        var args = Arena.ofAuto().allocate(cul_sample_args.layout());
        cul_sample_args.logits(args, on.x);
        cul_sample_args.temperature(args, on.temperature);
        cul_sample_args.top_k(args, on.topK);
        cul_sample_args.top_p(args, on.topP);
        cul_sample_args.min_p(args, on.minP);
        cul_sample_args.seed(args, on.seed);
        cul_sample_args.position(args, on.position);
        cul_sample_args.ids(args, on.ids);
        return args;
    }

    private MemorySegment checked(MemorySegment args, MemorySegment function) {
        cul_op_call.struct_size(args, (int) args.byteSize());
        cul_op_call.flags(args, culebra_h.CUL_OP_PLAN_ONLY());
        arguments.add(args);
        var calls = Arena.ofAuto().allocate(cul_batch_call.sizeof() * CALLS, 8);
        for (var i = 0; i < CALLS; i++) {
            var call = calls.asSlice(i * cul_batch_call.sizeof(), cul_batch_call.sizeof());
            cul_batch_call.kind(call, culebra_h.CUL_BATCH_OP());
            cul_batch_call.target(call, function);
            cul_batch_call.args(call, args);
        }
        return calls;
    }

    /** Closes the devices. */
    @TearDown
    public void close() {
        on.close();
        device.close();
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void rmsNormChecked() {
        Native.check(culebra_h.cul_batch(on.stream, rmsNormsChecked, CALLS, done));
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void sampleChecked() {
        Native.check(culebra_h.cul_batch(on.stream, samplesChecked, CALLS, done));
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

    float[] normalised() {
        return y.floats(stream);
    }

    int drawn() {
        return ids.ints(stream)[0];
    }
}
