package dev.culebra.benchmarks.calls;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.generated.cul_op_call;
import dev.culebra.bindings.generated.cul_rms_norm_args;
import dev.culebra.bindings.generated.cul_sample_args;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.TearDown;

/** Through jextract's method handles: the struct is filled in Java, nothing is checked before the C ABI. */
public class Bindings extends Calls {
    /** The backend's name. */
    @Param("cpu")
    public String backend;

    private final MemorySegment rmsNormArgs = Arena.ofAuto().allocate(cul_rms_norm_args.layout());
    private final MemorySegment sampleArgs = Arena.ofAuto().allocate(cul_sample_args.layout());
    private final MemorySegment out = Arena.ofAuto().allocate(ValueLayout.JAVA_INT);
    private NativeOperands on;

    /** Opens a device and makes the operands. */
    @Setup
    public void open() {
        on = new NativeOperands(backend);
    }

    /** Closes the device. */
    @TearDown
    public void close() {
        on.close();
    }

    @Benchmark
    public int noop() {
        return culebra_h.cul_abi_version();
    }

    /** As {@link #noop}, without the transition to native state. */
    @Benchmark
    public long noopCritical() {
        return Native.lastWorkspaceBytes();
    }

    @Benchmark
    public boolean query() {
        Native.check(culebra_h.cul_stream_query(on.stream, out));
        return out.get(ValueLayout.JAVA_INT, 0) != 0;
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
            var args = rmsNormArgs;
            cul_op_call.struct_size(args, (int) cul_rms_norm_args.sizeof());
            cul_op_call.flags(args, flags);
            cul_rms_norm_args.x(args, on.x);
            cul_rms_norm_args.weight(args, on.weight);
            cul_rms_norm_args.residual(args, MemorySegment.NULL);
            cul_rms_norm_args.y(args, on.y);
            cul_rms_norm_args.residual_out(args, MemorySegment.NULL);
            cul_rms_norm_args.eps(args, EPS);
            cul_rms_norm_args.zero_centered(args, 0);
            Native.check(culebra_h.cul_rms_norm(on.stream, args));
        }
    }

    private void samples(int flags) {
        for (var i = 0; i < CALLS; i++) {
            var args = sampleArgs;
            cul_op_call.struct_size(args, (int) cul_sample_args.sizeof());
            cul_op_call.flags(args, flags);
            cul_sample_args.logits(args, on.x);
            cul_sample_args.temperature(args, on.temperature);
            cul_sample_args.top_k(args, on.topK);
            cul_sample_args.top_p(args, on.topP);
            cul_sample_args.min_p(args, on.minP);
            cul_sample_args.seed(args, on.seed);
            cul_sample_args.position(args, on.position);
            cul_sample_args.ids(args, on.ids);
            cul_sample_args.logprob(args, MemorySegment.NULL);
            Native.check(culebra_h.cul_sample(on.stream, args));
        }
    }

    NativeOperands operands() {
        return on;
    }
}
