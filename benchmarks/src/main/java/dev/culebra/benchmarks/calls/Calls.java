package dev.culebra.benchmarks.calls;

import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.State;

/**
 * What a call costs, by several ways into native code that offer the same work under the same method names:
 * <dl>
 * <dt>noop<dd>a getter of a constant: the transition alone
 * <dt>query<dd>has the stream passed its work: the least call with a handle and a result
 * <dt>rmsNormChecked, sampleChecked<dd>an operator of 3 and one of 8 tensors, with {@code PLAN_ONLY}: everything up to
 * the queue, so also every check of its arguments
 * <dt>rmsNorm, sample<dd>the same operators queued and run on 8 elements, a wait after every {@value #CALLS} calls
 * <dt>rmsNormGraph, sampleGraph<dd>these {@value #CALLS} calls as one graph
 * </dl>
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public abstract class Calls {
    /** Operator calls of one invocation. */
    protected static final int CALLS = 64;

    static final float EPS = 1e-6f;
    static final float[] X = {3, -1, 4, 1, -5, 9, 2, -6};
    static final float[] WEIGHT = {1, 2, 1, 2, 1, 2, 1, 2};
    static final float[] TEMPERATURE = {0.7f};
    static final int[] TOP_K = {4};
    static final float[] TOP_P = {0.9f};
    static final float[] MIN_P = {0};
    static final long[] SEED = {42};
    static final long[] POSITION = {7};
}
