package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.culebra.Activation;
import dev.culebra.CheckpointWeights;
import dev.culebra.DType;
import dev.culebra.DeviceOptions;
import dev.culebra.Epilogue;
import dev.culebra.Ops;
import dev.culebra.Tensor;
import dev.culebra.WeightFormat;
import dev.culebra.conformance.Bindings;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.CaseException;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Runner;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.api.TestInstance;

/** The same bits: from run to run, for any number of threads or order of emulated ones, and for a row in any batch. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class DeterminismSuite {
    /** An emulated grid repeats its order by itself; what could differ there is the order, which the variants change. */
    private static int runs(String backend) {
        return backend.startsWith("simt") ? 3 : 20;
    }

    abstract List<String> backends();

    /** Work that an emulated GPU does several times in reasonable time. */
    private static final long LARGEST_BYTES = 64 << 10;

    /** Of every operator the case with the most work. */
    private static List<Case> cases() {
        var largest = new LinkedHashMap<String, Case>();
        RandomCases.all(1)
                .filter(source -> bytes(source) <= LARGEST_BYTES)
                .forEach(source -> largest.merge(source.op(), source, (a, b) -> bytes(b) > bytes(a) ? b : a));
        return List.copyOf(largest.values());
    }

    private static long bytes(Case source) {
        return source.inputs().values().stream().mapToLong(input -> input.data().byteSize()).sum();
    }

    @TestFactory
    Stream<DynamicTest> identicalRuns() {
        return backends().stream().flatMap(backend -> cases().stream()
                .filter(source -> Backends.operators(backend).contains(source.op()))
                .map(source -> dynamicTest(backend + " " + source.path(), () -> {
                    try (var runner = new Runner(backend)) {
                        var first = runner.results(source);
                        for (var run = 1; run < runs(backend); run++) {
                            assertSame(first, runner.results(source), "run " + run);
                        }
                    }
                })));
    }

    /** The ways in which a backend can be asked to run the same work. */
    private static List<DeviceOptions> variants(String backend) {
        return switch (backend) {
            case "cpu" -> Stream.of(1, 2, 3, 7).map(DeviceOptions.DEFAULT::withThreads).toList();
            case "simt", "simt:1" -> List.of(
                    DeviceOptions.DEFAULT,
                    DeviceOptions.DEFAULT.withSchedule(DeviceOptions.Schedule.REVERSE),
                    DeviceOptions.DEFAULT.withSchedule(DeviceOptions.Schedule.RANDOM).withSeed(11),
                    DeviceOptions.DEFAULT.withSchedule(DeviceOptions.Schedule.RANDOM).withSeed(12));
            default -> List.of(DeviceOptions.DEFAULT);
        };
    }

    @TestFactory
    Stream<DynamicTest> anyNumberOfThreadsAndAnySchedule() {
        return backends().stream().flatMap(backend -> cases().stream()
                .filter(source -> Backends.operators(backend).contains(source.op()))
                .map(source -> dynamicTest(backend + " " + source.path(), () -> {
                    Map<String, HostTensor> first = null;
                    for (var options : variants(backend)) {
                        var results = results(backend, options, source);
                        first = first == null ? results : first;
                        assertSame(first, results, options.toString());
                    }
                })));
    }

    private static Map<String, HostTensor> results(String backend, DeviceOptions options, Case source) throws CaseException {
        try (var runner = new Runner(backend, options, Bindings.ALL)) {
            return runner.results(source);
        }
    }

    private static void assertSame(Map<String, HostTensor> expected, Map<String, HostTensor> actual, String when) {
        expected.forEach((output, value) ->
                assertTrue(value.sameBits(actual.get(output)), () -> output + " differs in " + when));
    }

    private interface Product {
        void multiply(Tensor a, Tensor c);
    }

    @ParameterizedTest
    @MethodSource("backends")
    void aRowIsTheSameInAnyBatch(String backend) {
        try (var on = new TestDevice(backend)) {
            var n = 96;
            var k = 288;
            var b = on.normal(DType.F16, n, k);
            assertRowsAlone(on, n, k, (a, c) -> Ops.gemm(on.stream, a, b, null, c, Activation.SILU));
            var checkpoint = PackedGemmCases.checkpoint(on.random, 4, n, k, 32, DType.F16, false, true, false);
            var tensors = checkpoint.encode(WeightFormat.GPTQ_V2, true, true);
            var weights = Ops.packWeights(on.stream, on.scope, CheckpointWeights.of(WeightFormat.GPTQ_V2, 4, 32,
                    on.upload(tensors.get("qweight")), on.upload(tensors.get("scales")), on.upload(tensors.get("qzeros")),
                    on.upload(tensors.get("g_idx"))));
            assertRowsAlone(on, n, k, (a, c) -> Ops.w4a16Gemm(on.stream, a, weights, null, c, Epilogue.NONE));
        }
    }

    private static void assertRowsAlone(TestDevice on, int n, int k, Product product) {
        var rows = 37;
        var a = on.normal(DType.F16, rows, k);
        var together = on.zeros(DType.F16, rows, n);
        var alone = on.zeros(DType.F16, rows, n);
        on.stream.batchInvariant(true);
        product.multiply(a, together);
        for (var row = 0; row < rows; row++) {
            product.multiply(a.slice(0, row, row + 1), alone.slice(0, row, row + 1));
        }
        on.stream.batchInvariant(false);
        assertArrayEquals(together.bytes(on.stream), alone.bytes(on.stream));
    }
}
