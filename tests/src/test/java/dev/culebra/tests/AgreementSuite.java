package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.DynamicContainer.dynamicContainer;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.culebra.DType;
import dev.culebra.LogprobOptions;
import dev.culebra.Ops;
import dev.culebra.conformance.Runner;
import dev.culebra.conformance.Verdict;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.DynamicNode;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

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
        var cases = RandomCases.all(seed).toList();
        return backends().stream().map(backend -> {
            var runner = new Runner(backend);
            runners.add(runner);
            var declared = Backends.operators(backend);
            return dynamicContainer(backend, cases.stream()
                    .filter(source -> declared.contains(source.op()))
                    .map(source -> dynamicTest(source.path().toString(), () -> {
                        var result = runner.run(source);
                        assertEquals(Verdict.PASS, result.verdict(), () -> source.path() + ": " + result.message());
                    })));
        });
    }

    /** Log-probabilities over shards of a vocabulary merge to those over all of it, by adding exponentials. */
    @ParameterizedTest
    @MethodSource("backends")
    void shardsOfAVocabularyMerge(String backend) {
        var tokens = 9;
        var words = 300;
        var cut = 170;
        try (var on = new TestDevice(backend)) {
            var e = on.normal(DType.F32, tokens, 48);
            var c = on.normal(DType.F32, words, 48);
            var targets = on.scope.allocate(DType.I64, tokens);
            targets.setLongs(on.stream, on.random.longs(tokens, 0, words).toArray());
            var logprob = new double[3][tokens];
            var lse = new double[3][tokens];
            for (var part = 0; part < 3; part++) {
                var from = part == 2 ? cut : 0;
                var to = part == 1 ? cut : words;
                var logprobs = on.zeros(DType.F32, tokens);
                var sums = on.zeros(DType.F32, tokens);
                Ops.linearLogprob(on.stream, e, c.slice(0, from, to), null, targets, logprobs, sums,
                        LogprobOptions.DEFAULT.withVocabStart(from));
                var values = logprobs.floats(on.stream);
                var totals = sums.floats(on.stream);
                for (var t = 0; t < tokens; t++) {
                    logprob[part][t] = values[t];
                    lse[part][t] = totals[t];
                }
            }
            for (var t = 0; t < tokens; t++) {
                var total = merge(lse[1][t], lse[2][t]);
                assertEquals(lse[0][t], total, 1e-4);
                assertEquals(logprob[0][t], merge(logprob[1][t] + lse[1][t], logprob[2][t] + lse[2][t]) - total, 1e-4);
            }
        }
    }

    private static double merge(double a, double b) {
        var largest = Math.max(a, b);
        return largest + Math.log(Math.exp(a - largest) + Math.exp(b - largest));
    }

    @AfterAll
    void close() {
        runners.forEach(Runner::close);
    }
}
