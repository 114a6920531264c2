package dev.culebra.benchmarks.ops;

import dev.culebra.Device;
import dev.culebra.inference.LoadProgress;
import dev.culebra.inference.Qwen3NextModel;
import dev.culebra.inference.Sampling;
import dev.culebra.inference.Sequence;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.AuxCounters;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.results.RunResult;

/**
 * One token of the sample checkpoint, from {@link Sequence#next} to the token on the host, by the ways of {@link
 * Sequence.Queueing}; and the host's part of it until the step was queued.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
public class DecodeStep {
    private static final int[] PROMPT = {5, 6, 7, 8, 9, 10, 11, 12};

    /** The host's time, apart from JMH's own result. */
    @State(Scope.Thread)
    @AuxCounters(AuxCounters.Type.EVENTS)
    public static class Host {
        /** Until the steps were queued. */
        public double queueNanos;

        /** How many steps. */
        public double steps;

        /** Begins an iteration. */
        @Setup(Level.Iteration)
        public void clear() {
            queueNanos = 0;
            steps = 0;
        }
    }

    /** The backend's name. */
    @Param("cpu")
    public String backend;

    /** How a step gets into the stream. */
    @Param({"CALLS", "PREPARED", "GRAPH"})
    public Sequence.Queueing queueing;

    /** The checkpoint's folder. */
    @Param("samples/kjv-hybrid-tiny/gptq-int4")
    public String checkpoint;

    private Device device;
    private Qwen3NextModel model;
    Sequence sequence;

    /** Loads the checkpoint and reads a prompt. */
    @Setup
    public void open() {
        device = Device.open(backend);
        model = Qwen3NextModel.load(device, Path.of(checkpoint), LoadProgress.NONE);
        sequence = new Sequence(model, model.config().maxPositions(), Sampling.GREEDY, queueing);
        begin();
    }

    private void begin() {
        sequence.clear();
        sequence.prefill(PROMPT);
    }

    /** Closes everything. */
    @TearDown
    public void close() {
        sequence.close();
        model.close();
        device.close();
    }

    @Benchmark
    public int step(Host host) {
        if (sequence.size() == sequence.capacity()) {
            begin();  // every some hundred steps
        }
        var before = sequence.queueNanos();
        var token = sequence.next();
        host.queueNanos += sequence.queueNanos() - before;
        host.steps++;
        return token;
    }

    /** The host's microseconds until a step was queued, per iteration, ascending. */
    public static double[] queueMicroseconds(RunResult result) {
        var iterations = result.getBenchmarkResults().iterator().next().getIterationResults();
        return iterations.stream()
                .mapToDouble(iteration -> iteration.getSecondaryResults().get("queueNanos").getScore()
                        / iteration.getSecondaryResults().get("steps").getScore() / 1e3)
                .sorted()
                .toArray();
    }
}
