package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.DynamicContainer.dynamicContainer;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.culebra.conformance.Case;
import dev.culebra.conformance.Runner;
import dev.culebra.conformance.Verdict;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.DynamicNode;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;

/**
 * Oracle and backends on made-up inputs, within the contract's bounds: guard bands, padded rows, poison and repeated runs
 * as for the public cases. Each test's name has its seed; {@code -Dculebra.test.seed=N} repeats a run.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class AgreementSuite {
    private final List<Runner> runners = new ArrayList<>();

    abstract List<String> backends();

    static long seed() {
        return Long.getLong("culebra.test.seed", System.nanoTime() % 1_000_000 * 1000);
    }

    @TestFactory
    Stream<DynamicNode> agreement() {
        var seed = seed();
        System.out.println("agreement: -Dculebra.test.seed=" + seed);
        var cases = new ArrayList<Case>();
        cases.addAll(GlueCases.all(seed));
        cases.addAll(GemmCases.all(seed));
        cases.addAll(PackedGemmCases.all(seed));
        cases.addAll(ModelCases.all(seed));
        return backends().stream().map(backend -> {
            var runner = new Runner(backend);
            runners.add(runner);
            var declared = Backends.operators(backend);
            return dynamicContainer(backend, cases.stream()
                    .filter(source -> declared.contains(source.op()))
                    .map(source -> dynamicTest(source.path().toString(), () -> {
                        var result = runner.run(source);
                        assertEquals(Verdict.PASS, result.verdict(), result.message());
                    })));
        });
    }

    @AfterAll
    void close() {
        runners.forEach(Runner::close);
    }
}
