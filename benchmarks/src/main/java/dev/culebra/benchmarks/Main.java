package dev.culebra.benchmarks;

import dev.culebra.Device;
import dev.culebra.benchmarks.Results.Row;
import dev.culebra.benchmarks.calls.Api;
import dev.culebra.benchmarks.calls.JCuda;
import dev.culebra.benchmarks.ops.DecodeStep;
import dev.culebra.benchmarks.ops.MemoryBandwidth;
import dev.culebra.benchmarks.ops.W4A16Gemm;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;

/**
 * Runs the benchmarks and leaves {@code jmh.json}, {@code calls.svg}, {@code w4a16_gemm.svg} and {@code decode.svg} in a folder
 * named after the device. JMH's own command line, {@code org.openjdk.jmh.Main}, is in the same jar.
 */
public final class Main {
    private static final String USAGE = "usage: [--quick] [--backend NAME] [--results DIR] [--commit TEXT]";

    private boolean quick;
    private String backend = "cpu";
    private Path results = Path.of("benchmarks", "results");
    private String commit = "unknown";

    private Main(String[] arguments) {
        for (var i = 0; i < arguments.length; i++) {
            var option = arguments[i];
            if (option.equals("--quick")) {
                quick = true;
                continue;
            }
            if (i + 1 == arguments.length) {
                throw new IllegalArgumentException(option + " is not an option, or lacks its value");
            }
            var value = arguments[++i];
            switch (option) {
                case "--backend" -> backend = value;
                case "--results" -> results = Path.of(value);
                case "--commit" -> commit = value;
                default -> throw new IllegalArgumentException(option + " is not an option");
            }
        }
    }

    /** Exit code 0: every benchmark ran and its results were right. */
    public static void main(String[] arguments) throws RunnerException, IOException {
        Main main;
        try {
            main = new Main(arguments);
        } catch (IllegalArgumentException e) {
            System.err.println(e.getMessage() + "\n" + USAGE);
            System.exit(2);
            return;
        }
        main.run();
    }

    private void run() throws RunnerException, IOException {
        var run = describe();
        var calls = calls();
        var before = bandwidth();
        var timed = gemms();
        var bandwidth = Math.max(before, bandwidth());
        run.put("memory_bandwidth_gb_s", Results.format(bandwidth / 1e3));
        var gemms = limited(timed, bandwidth);
        var steps = steps();
        var rows = new ArrayList<>(calls);
        rows.addAll(gemms);
        rows.addAll(steps);
        var all = new Results(run, rows);

        var folder = results.resolve(run.get("device"));
        all.write(folder.resolve("jmh.json"));
        var subtitle = run.get("device") + ", JDK " + run.get("jdk") + ", " + run.get("commit") + ", " + run.get("date")
                + (quick ? ", quick" : "");
        Files.writeString(folder.resolve("calls.svg"), BarChart.draw(
                "What a call costs (bar: median, line: p10 to p90; a scale for each kind of work)", subtitle + ", JCuda against " + run.get("jcuda_driver"), calls));
        Files.writeString(folder.resolve("w4a16_gemm.svg"), BarChart.draw(
                "w4a16_gemm through the Java API (red: the limit that memory sets)", subtitle, gemms));
        Files.writeString(folder.resolve("decode.svg"), BarChart.draw(
                "A step of decoding of the sample checkpoint, by the way that it gets into the stream", subtitle, steps));
        System.out.println(all.table() + "\n" + folder);
    }

    private Map<String, String> describe() {
        var run = new LinkedHashMap<String, String>();
        try (var device = Device.open(backend)) {
            var info = device.info();
            run.put("benchmark", "jmh");
            run.put("device", info.name().toLowerCase(Locale.ROOT).replaceAll("[^a-z0-9]+", "-").replaceAll("^-|-$", "")
                    + (backend.equals("cpu") ? "-" + info.multiprocessors() + "c" : ""));
            run.put("backend", backend);
            run.put("device_name", info.name());
            run.put("device_detail", info.detail());
            run.put("load_average", Double.toString(ManagementFactory.getOperatingSystemMXBean().getSystemLoadAverage()));
            if (backend.equals("cpu")) {
                run.put("threads", Integer.toString(info.multiprocessors()));
            }
        }
        run.put("commit", commit);
        run.put("date", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString());
        run.put("jdk", Runtime.version().toString());
        run.put("library", Device.library().replaceAll(" from .*", ""));
        run.put("jcuda_driver", JCuda.driverPresent() ? "the machine's driver" : "an empty driver");
        run.put("protocol", quick ? "quick" : "full");
        return run;
    }

    private List<Row> calls() throws RunnerException {
        var options = options(quick ? 1 : 3, 5, quick ? 400 : 1000, quick ? 200 : 1000)
                .include(Api.class.getPackageName().replace(".", "\\.") + "\\.")
                .addProfiler(GCProfiler.class);
        var order = List.of("noop", "noopCritical", "query", "rmsNormChecked", "rmsNorm", "rmsNormGraph",
                "sampleChecked", "sample", "sampleGraph", "launch");
        return run(options).stream()
                .map(result -> row(method(result), via(result), result, "ns", null))
                .sorted(Comparator.comparingInt((Row row) -> order.indexOf(row.work())).thenComparing(Row::via))
                .toList();
    }

    /** Bytes a microsecond: the best of its iterations, since other work on the machine makes it look smaller, and us better. */
    private double bandwidth() throws RunnerException {
        var cpu = backend.equals("cpu");
        var options = options(1, 20, 100, 100)
                .include(MemoryBandwidth.class.getName() + (cpu ? ".read" : ".copy"));
        var operations = run(options).iterator().next().getPrimaryResult().getStatistics().getMax();
        return operations * (cpu ? MemoryBandwidth.READ_BYTES : MemoryBandwidth.COPY_BYTES) / 1e6;
    }

    private Collection<RunResult> gemms() throws RunnerException {
        return run(options(1, quick ? 2 : 5, 1000, quick ? 1000 : 3000).include(W4A16Gemm.class.getName()));
    }

    /** Per way of queueing: the whole step, and the host's part of it until the step was queued. */
    private List<Row> steps() throws RunnerException {
        var rows = new ArrayList<Row>();
        for (var result : run(options(1, quick ? 2 : 5, 1000, quick ? 1000 : 3000).include(DecodeStep.class.getName()))) {
            var via = result.getParams().getParam("queueing").toLowerCase(Locale.ROOT);
            rows.add(row("decode step", via, result, "us", null));
            var queued = DecodeStep.queueMicroseconds(result);
            rows.add(new Row("decode step: host until queued", via, "us", queued[queued.length / 2], queued[queued.length / 10],
                    queued[queued.length - 1 - queued.length / 10], queued.length, null, null));
        }
        rows.sort(Comparator.comparing(Row::work));
        return rows;
    }

    private static List<Row> limited(Collection<RunResult> gemms, double bytesPerMicrosecond) {
        return gemms.stream()
                .map(result -> {
                    var m = parameter(result, "m");
                    var n = parameter(result, "n");
                    var k = parameter(result, "k");
                    return row("w4a16_gemm " + m + "x" + n + "x" + k + " g128", "api", result, "us",
                            W4A16Gemm.leastBytes(m, n, k) / bytesPerMicrosecond);
                })
                .toList();
    }

    private ChainedOptionsBuilder options(int forks, int iterations, int warmupMs, int measuredMs) {
        return new OptionsBuilder()
                .forks(forks)
                .warmupIterations(iterations)
                .warmupTime(TimeValue.milliseconds(warmupMs))
                .measurementIterations(iterations)
                .measurementTime(TimeValue.milliseconds(measuredMs))
                .param("backend", backend)
                .shouldFailOnError(true)
                // The manifest grants these to this JVM only; JMH itself uses Unsafe.
                .jvmArgsAppend("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow");
    }

    private static Collection<RunResult> run(ChainedOptionsBuilder options) throws RunnerException {
        return new Runner(options.build()).run();
    }

    private static String method(RunResult result) {
        var name = result.getParams().getBenchmark();
        return name.substring(name.lastIndexOf('.') + 1);
    }

    /** The class of a benchmark of {@link dev.culebra.benchmarks.calls} is the way that it takes. */
    private static String via(RunResult result) {
        var name = result.getParams().getBenchmark();
        var type = name.substring(0, name.lastIndexOf('.'));
        return type.substring(type.lastIndexOf('.') + 1).toLowerCase(Locale.ROOT);
    }

    private static long parameter(RunResult result, String name) {
        return Long.parseLong(result.getParams().getParam(name));
    }

    private static Row row(String work, String via, RunResult result, String unit, @Nullable Double limit) {
        var samples = result.getPrimaryResult().getStatistics();
        var allocated = result.getSecondaryResults().get("gc.alloc.rate.norm");
        return new Row(work, via, unit, samples.getPercentile(50), samples.getPercentile(10), samples.getPercentile(90), samples.getN(),
                allocated == null ? null : allocated.getScore(), limit);
    }
}
