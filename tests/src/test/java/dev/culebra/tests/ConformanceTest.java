package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.culebra.Device;
import dev.culebra.Ops;
import dev.culebra.Status;
import dev.culebra.conformance.Attributes;
import dev.culebra.conformance.Bindings;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.CaseException;
import dev.culebra.conformance.CaseFiles;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import dev.culebra.conformance.Runner;
import dev.culebra.conformance.Verdict;
import dev.culebra.oracles.Oracles;
import dev.culebra.oracles.Problem;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

class ConformanceTest extends ConformanceSuite {
    @Override
    List<String> backends() {
        return Backends.here();
    }

    @Test
    void expectedBackendsAreAvailable() {
        for (var expected : Backends.EXPECTED) {
            var found = Device.available().stream().filter(a -> a.backend().toString().equals(expected)).findFirst();
            assertTrue(found.isPresent(), "there is no backend " + expected);
            assertTrue(found.get().isAvailable(), () -> expected + " is not available: " + found.get().reason());
        }
    }

    /** A new operator needs a binding; unpack_weights is tested by pack_weights. */
    @Test
    void everyOperatorHasABinding() {
        var missing = Ops.list().stream().map(op -> op.name())
                .filter(op -> !op.equals("unpack_weights") && !Bindings.ALL.containsKey(op)).toList();
        assertEquals(List.of(), missing);
    }

    @Test
    void theCpuHasEveryOperatorWithPublicCases() throws CaseException {
        var declared = Backends.operators("cpu");
        for (var file : CaseFiles.find(List.of(Backends.cases()))) {
            assertTrue(declared.contains(Case.read(file).op()), () -> "cpu lacks the operator of " + file);
        }
    }

    /** An attribute's value that only the tensors made from it would show: it must be refused as what it is. */
    @Test
    void productsOfBytesReturnHalf() throws CaseException {
        for (var file : List.of("w6a8_gemm/g128_m1", "w4a8_gemm/m1")) {
            var legal = Case.read(Backends.cases().resolve(file + ".safetensors"));
            var attributes = new LinkedHashMap<>(legal.attributes());
            attributes.put("out_dtype", "f32");
            var source = new Case(legal.path(), legal.op(), "", attributes, legal.inputs(), Map.of(), Map.of(), Map.of(), null, Status.RANGE);
            try (var runner = new Runner("cpu")) {
                var result = runner.run(source);
                assertEquals(Verdict.PASS, result.verdict(), result.message());
            }
        }
    }

    /** The oracles against the independent references: float64 beside float32 storage, so far within the bounds. */
    @TestFactory
    Stream<DynamicTest> oraclesGiveWhatTheCasesExpect() throws CaseException {
        return CaseFiles.find(List.of(Backends.cases())).stream().flatMap(file -> {
            try {
                var source = Case.read(file);
                return source.expectError() != null || !Oracles.ALL.containsKey(source.op()) ? Stream.of()
                        : Stream.of(dynamicTest(file.toString(), () -> compare(source)));
            } catch (CaseException e) {
                throw new AssertionError(e);
            }
        });
    }

    private static void compare(Case source) {
        var inputs = new LinkedHashMap<String, HostTensor>();
        source.inputs().forEach((name, entry) ->
                inputs.put(name, new HostTensor(entry.dtype().orElseThrow(), entry.extents(), entry.data())));
        var problem = new Problem(inputs, new Attributes(source.attributes()));
        Oracles.ALL.get(source.op()).solve(problem);
        for (var output : source.outputs().entrySet()) {
            var check = source.checks().get(output.getKey());
            var comparison = Metric.compare(problem.outputs().get(output.getKey()), output.getValue(), check);
            assertTrue(comparison.passed(), () -> output.getKey() + " " + comparison.fault());
        }
    }
}
