package dev.culebra.cli;

import dev.culebra.Activation;
import dev.culebra.Backend;
import dev.culebra.CheckpointWeights;
import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.Epilogue;
import dev.culebra.Ops;
import dev.culebra.PackedWeights;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.WeightFormat;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.function.IntConsumer;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/**
 * {@code bench}: a minute's look at the operators that decide a model's speed, each beside its limit: the bytes it must move
 * over the bandwidth measured in the same run. The JMH module has the careful figures.
 */
@Command(name = "bench", description = "Measure a few operators beside their limits.", mixinStandardHelpOptions = true)
final class BenchCommand implements Callable<Integer> {
    private static final int SAMPLES = 15;
    private static final long SAMPLE_NANOSECONDS = 20_000_000;

    /** More than any cache: buffers rotate over this much. */
    private static final long ROTATION_BYTES = 256 << 20;

    private static final int N = 4096;
    private static final int K = 14336;
    private static final int GROUP = 128;

    private interface Product {
        void multiply(Stream stream, Tensor a, PackedWeights w, @Nullable Tensor bias, Tensor c, Epilogue epilogue);
    }

    /** A product with packed weights of so many bits. */
    private record PackedProduct(String op, int bits, Product product) {}

    private static final List<PackedProduct> PACKED = List.of(
            new PackedProduct("w4a16_gemm", 4, Ops::w4a16Gemm),
            new PackedProduct("w6a16_gemm", 6, Ops::w6a16Gemm),
            new PackedProduct("w8a16_gemm", 8, Ops::w8a16Gemm));

    private static final int[] ROWS = {1, 16};

    @Option(names = "--backend", paramLabel = "B", description = "cpu (default), cuda, or one of several: cuda:1.")
    private String backend = "cpu";

    @Option(names = "--json", arity = "0..1", fallbackValue = "-", paramLabel = "FILE",
            description = "As a JSON object, to this file or to standard output.")
    private @Nullable Path json;

    @Spec
    private CommandSpec spec;

    /** Times in microseconds of one call; {@code bytes} that it must move. */
    private record Row(String op, String shape, double median, double low, double high, double bytes, double limit) {
        double fraction() {
            return limit / median;
        }
    }

    @Override
    public Integer call() throws IOException {
        var rows = new ArrayList<Row>();
        double bandwidth;
        String name;
        try (var device = Device.open(backend); var progress = new Progress(spec.commandLine().getErr(), 2 + PACKED.size())) {
            if (device.backend() == Backend.SIMT) {
                throw new CommandException("simt emulates a GPU: its times mean nothing; choose cpu or cuda");
            }
            name = device.info().name();
            try (var stream = device.openStream(); var scope = device.openScope()) {
                progress.step("bandwidth");
                bandwidth = bandwidth(stream, scope);
                for (var product : PACKED) {
                    progress.step(product.op());
                    packed(stream, scope, product, bandwidth, rows);
                }
                progress.step("gemm, rms_norm");
                rows.add(gemm(stream, scope, bandwidth));
                rows.add(rmsNorm(stream, scope, bandwidth));
            }
        }
        if (json == null) {
            print(spec.commandLine().getOut(), name, bandwidth, rows);
        } else if (json.toString().equals("-")) {
            spec.commandLine().getOut().println(json(name, bandwidth, rows));
        } else {
            Files.writeString(json, json(name, bandwidth, rows) + "\n");
        }
        return 0;
    }

    /** Bytes per second: the better of a copy, which reads and writes, and of argmax, which reads alone. */
    private static double bandwidth(Stream stream, Scope scope) {
        var rows = 256;
        try (var source = scope.zeros(stream, DType.F32, rows, ROTATION_BYTES / 4 / rows);
                var target = scope.zeros(stream, DType.F32, rows, ROTATION_BYTES / 4 / rows);
                var ids = scope.allocate(DType.I32, rows)) {
            var copy = 2 * ROTATION_BYTES / median(stream, i -> target.copyFrom(stream, source));
            var read = ROTATION_BYTES / median(stream, i -> Ops.argmax(stream, source, ids));
            return 1e6 * Math.max(copy, read);
        }
    }

    private static void packed(Stream stream, Scope scope, PackedProduct product, double bandwidth, List<Row> rows) {
        try (var inner = scope.openScope()) {
            var weights = weights(stream, inner, product.bits());
            for (var m : ROWS) {
                var a = random(stream, inner, DType.F16, m, K);
                var c = inner.allocate(DType.F16, m, N);
                var bytes = weights.getFirst().bytes() + a.bytes() + c.bytes();
                rows.add(row(product.op(), "M=" + m + " N=" + N + " K=" + K + " g" + GROUP + " f16", bytes, bandwidth, stream,
                        i -> product.product().multiply(stream, a, weights.get(i % weights.size()), null, c, Epilogue.NONE)));
            }
        }
    }

    /** Copies of one random matrix, more than a cache holds. */
    private static List<PackedWeights> weights(Stream stream, Scope scope, int bits) {
        var random = new Random(1);
        var integers = new byte[N * K];
        random.nextBytes(integers);
        for (var i = 0; i < integers.length; i++) {
            integers[i] &= (byte) ((1 << bits) - 1);
        }
        try (var q = scope.allocate(DType.U8, N, K); var scales = scope.allocate(DType.F16, N, K / GROUP)) {
            q.setBytes(stream, integers);
            var factors = new float[N * (K / GROUP)];
            Arrays.fill(factors, 0.01f);
            scales.setFloats(stream, factors);
            var checkpoint = CheckpointWeights.of(WeightFormat.PLAIN, bits, GROUP, q, scales, null, null);
            var packed = new ArrayList<PackedWeights>();
            for (var bytes = 0L; bytes < ROTATION_BYTES; bytes += packed.getLast().bytes()) {
                packed.add(Ops.packWeights(stream, scope, checkpoint));
            }
            stream.synchronize();
            return packed;
        }
    }

    private static Row gemm(Stream stream, Scope scope, double bandwidth) {
        var features = 4096;
        var copies = Math.toIntExact(ROTATION_BYTES / (2L * features * features));
        try (var inner = scope.openScope()) {
            var a = random(stream, inner, DType.F16, 1, features);
            var c = inner.allocate(DType.F16, 1, features);
            var b = new Tensor[copies];
            Arrays.setAll(b, i -> inner.zeros(stream, DType.F16, features, features));
            return row("gemm", "M=1 N=4096 K=4096 f16", b[0].bytes() + a.bytes() + c.bytes(), bandwidth, stream,
                    i -> Ops.gemm(stream, a, b[i % copies], null, c, Activation.NONE));
        }
    }

    private static Row rmsNorm(Stream stream, Scope scope, double bandwidth) {
        var tokens = 4096;
        var width = 4096;
        var copies = Math.toIntExact(ROTATION_BYTES / (4L * tokens * width));
        try (var inner = scope.openScope()) {
            var weight = random(stream, inner, DType.F16, width);
            var x = new Tensor[copies];
            var y = new Tensor[copies];
            Arrays.setAll(x, i -> inner.zeros(stream, DType.F16, tokens, width));
            Arrays.setAll(y, i -> inner.zeros(stream, DType.F16, tokens, width));
            return row("rms_norm", "T=4096 D=4096 f16", 2.0 * x[0].bytes(), bandwidth, stream,
                    i -> Ops.rmsNorm(stream, x[i % copies], weight, null, y[i % copies], null, 1e-6f, false));
        }
    }

    private static Tensor random(Stream stream, Scope scope, DType dtype, long... shape) {
        var tensor = scope.allocate(dtype, shape);
        var random = new Random(2);
        var values = new float[Math.toIntExact(tensor.elements())];
        for (var i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        tensor.setFloats(stream, values);
        return tensor;
    }

    private static Row row(String op, String shape, double bytes, double bandwidth, Stream stream, IntConsumer call) {
        var times = times(stream, call);
        return new Row(op, shape, times[SAMPLES / 2], times[SAMPLES / 10], times[SAMPLES - 1 - SAMPLES / 10], bytes,
                1e6 * bytes / bandwidth);
    }

    private static double median(Stream stream, IntConsumer call) {
        return times(stream, call)[SAMPLES / 2];
    }

    /** Microseconds a call, ascending: samples of as many calls as take a while together. */
    private static double[] times(Stream stream, IntConsumer call) {
        call.accept(0);
        stream.synchronize();
        var begin = System.nanoTime();
        call.accept(1);
        stream.synchronize();
        var repeats = Math.clamp(SAMPLE_NANOSECONDS / Math.max(1, System.nanoTime() - begin), 1, 1000);
        var samples = new double[SAMPLES];
        var index = 2;
        for (var i = 0; i < SAMPLES; i++) {
            var start = System.nanoTime();
            for (var j = 0; j < repeats; j++) {
                call.accept(index++);
            }
            stream.synchronize();
            samples[i] = (System.nanoTime() - start) / 1e3 / repeats;
        }
        Arrays.sort(samples);
        return samples;
    }

    private void print(PrintWriter out, String name, double bandwidth, List<Row> rows) {
        out.printf(Locale.ROOT, "%s, %s: %.1f GB/s%n%n", backend, name, bandwidth / 1e9);
        var table = new Table("operator", "shape", "median us", "p10..p90", "limit us", "of the limit");
        for (var row : rows) {
            table.add(row.op(), row.shape(), format("%.1f", row.median()), format("%.1f..%.1f", row.low(), row.high()),
                    format("%.1f", row.limit()), format("%.0f %%", 100 * row.fraction()));
        }
        table.print(out);
    }

    private static String format(String pattern, Object... values) {
        return String.format(Locale.ROOT, pattern, values);
    }

    private String json(String name, double bandwidth, List<Row> rows) {
        return JsonText.object(json -> {
            json.writeStringField("backend", backend);
            json.writeStringField("device", name);
            json.writeNumberField("bandwidth_bytes_per_second", bandwidth);
            json.writeArrayFieldStart("rows");
            for (var row : rows) {
                json.writeStartObject();
                json.writeStringField("op", row.op());
                json.writeStringField("shape", row.shape());
                json.writeNumberField("median_us", row.median());
                json.writeNumberField("p10_us", row.low());
                json.writeNumberField("p90_us", row.high());
                json.writeNumberField("bytes", row.bytes());
                json.writeNumberField("limit_us", row.limit());
                json.writeNumberField("fraction_of_limit", row.fraction());
                json.writeEndObject();
            }
            json.writeEndArray();
        });
    }
}
