package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.culebra.DType;
import dev.culebra.LogprobOptions;
import dev.culebra.Ops;
import java.util.List;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Log-probabilities over shards of a vocabulary merge to those over all of it, by adding exponentials. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class LogprobShardTest {
    private static final int TOKENS = 9;
    private static final int WORDS = 300;
    private static final int CUT = 170;

    List<String> backends() {
        return Backends.here();
    }

    @ParameterizedTest
    @MethodSource("backends")
    void shardsMerge(String backend) {
        try (var on = new TestDevice(backend)) {
            var e = on.normal(DType.F32, TOKENS, 48);
            var c = on.normal(DType.F32, WORDS, 48);
            var targets = on.scope.allocate(DType.I64, TOKENS);
            targets.setLongs(on.stream, on.random.longs(TOKENS, 0, WORDS).toArray());
            var logprob = new double[3][TOKENS];
            var lse = new double[3][TOKENS];
            for (var part = 0; part < 3; part++) {
                var from = part == 2 ? CUT : 0;
                var to = part == 1 ? CUT : WORDS;
                var logprobs = on.zeros(DType.F32, TOKENS);
                var sums = on.zeros(DType.F32, TOKENS);
                Ops.linearLogprob(on.stream, e, c.slice(0, from, to), null, targets, logprobs, sums,
                        LogprobOptions.DEFAULT.withVocabStart(from));
                var values = logprobs.floats(on.stream);
                var totals = sums.floats(on.stream);
                for (var t = 0; t < TOKENS; t++) {
                    logprob[part][t] = values[t];
                    lse[part][t] = totals[t];
                }
            }
            for (var t = 0; t < TOKENS; t++) {
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
}
