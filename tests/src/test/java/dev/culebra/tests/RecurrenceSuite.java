package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.CaseException;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Runner;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;

/** What every recurrence keeps: calls in a row are one call, the future does not touch the past, sequences do not touch each other. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class RecurrenceSuite {
    private static final List<String> OPERATORS = List.of("simple_gla", "gated_linear_attention", "delta_rule", "gated_delta_rule",
            "kda", "linear_attention", "mlstm", "mixture_of_memories");

    /** Inputs [B, T, ...]. */
    private static final Set<String> TOKENS = Set.of("q", "k", "v", "beta", "g", "i", "f", "ids", "weights");

    /** A state's input by the output that continues it. */
    private static final Map<String, String> STATES = Map.of("final_state", "initial_state", "final_z_state", "z_state",
            "final_n_state", "n_state", "final_m_state", "m_state");

    private static final int HEADS = 2;
    private static final int KEYS = 16;
    private static final int VALUES = 24;
    private static final int MEMORIES = 3;

    abstract List<String> backends();

    private interface Test {
        void run(Runner runner, String op) throws CaseException;
    }

    private Stream<DynamicTest> each(Test test) {
        return backends().stream().flatMap(backend -> OPERATORS.stream()
                .filter(Backends.operators(backend)::contains)
                .map(op -> dynamicTest(backend + " " + op, () -> {
                    try (var runner = new Runner(backend)) {
                        test.run(runner, op);
                    }
                })));
    }

    /** {@code batch} sequences of {@code length} tokens with initial states. */
    private static Map<String, HostTensor> inputs(String op, DType dtype, int batch, int length) {
        var random = new Random(batch * 1000L + length);
        var inputs = new LinkedHashMap<String, HostTensor>();
        inputs.put("q", CaseBuilder.normal(random, dtype, 1, batch, length, HEADS, KEYS));
        inputs.put("k", CaseBuilder.normal(random, dtype, 1 / Math.sqrt(KEYS), batch, length, HEADS, KEYS));
        inputs.put("v", CaseBuilder.normal(random, dtype, 1, batch, length, HEADS, VALUES));
        inputs.put("initial_state", op.equals("mixture_of_memories")
                ? CaseBuilder.normal(random, DType.F32, 1, batch, MEMORIES, HEADS, VALUES, KEYS)
                : CaseBuilder.normal(random, DType.F32, 1, batch, HEADS, VALUES, KEYS));
        switch (op) {
            case "linear_attention" -> inputs.put("z_state", uniform(random, 1, 2, batch, HEADS, KEYS));
            case "mlstm" -> {
                inputs.put("i", CaseBuilder.normal(random, DType.F32, 2, batch, length, HEADS));
                inputs.put("f", CaseBuilder.normal(random, DType.F32, 2, batch, length, HEADS));
                inputs.put("n_state", CaseBuilder.normal(random, DType.F32, 1, batch, HEADS, KEYS));
                inputs.put("m_state", CaseBuilder.normal(random, DType.F32, 1, batch, HEADS));
            }
            case "gated_linear_attention", "kda" -> inputs.put("g", uniform(random, -2, 0, batch, length, HEADS, KEYS));
            case "delta_rule" -> {}
            default -> inputs.put("g", uniform(random, -2, 0, batch, length, HEADS));
        }
        if (op.endsWith("delta_rule") || op.equals("kda") || op.equals("mixture_of_memories")) {
            inputs.put("beta", uniform(random, 0, 1, batch, length, HEADS));
        }
        if (op.equals("mixture_of_memories")) {
            var ids = HostTensor.zeros(DType.I32, batch, length, 2);
            for (var i = 0L; i < ids.elements(); i += 2) {
                var first = random.nextInt(MEMORIES);
                ids.set(i, first);
                ids.set(i + 1, random.nextBoolean() ? -1 : (first + 1) % MEMORIES);
            }
            inputs.put("ids", ids);
            inputs.put("weights", uniform(random, 0, 1, batch, length, 2));
        }
        return inputs;
    }

    private static HostTensor uniform(Random random, double from, double to, long... shape) {
        var tensor = HostTensor.zeros(DType.F32, shape);
        for (var i = 0L; i < tensor.elements(); i++) {
            tensor.set(i, from + (to - from) * random.nextDouble());
        }
        return tensor;
    }

    private static CaseBuilder builder(String op, Map<String, HostTensor> inputs) {
        var builder = new CaseBuilder(op, 0).all(inputs);
        return op.equals("linear_attention") ? builder.attribute("feature_map", "elu1").attribute("normalize", true) : builder;
    }

    private static Case of(String op, Map<String, HostTensor> inputs) {
        return builder(op, inputs).build(inputs.get("q").dtype());
    }

    /** Rows [from, to) of one dimension. */
    private static HostTensor slice(HostTensor tensor, int dimension, int from, int to) {
        var shape = tensor.shape().clone();
        var extent = shape[dimension];
        shape[dimension] = to - from;
        var part = HostTensor.zeros(tensor.dtype(), shape);
        var outer = HostTensor.elements(Arrays.copyOf(shape, dimension));
        var row = tensor.data().byteSize() / Math.max(1, outer * extent);
        for (var i = 0L; i < outer; i++) {
            part.data().asSlice(i * (to - from) * row, (to - from) * row)
                    .copyFrom(tensor.data().asSlice((i * extent + from) * row, (to - from) * row));
        }
        return part;
    }

    private static Map<String, HostTensor> tokens(Map<String, HostTensor> inputs, int from, int to) {
        var part = new LinkedHashMap<String, HostTensor>();
        inputs.forEach((name, tensor) -> part.put(name, TOKENS.contains(name) ? slice(tensor, 1, from, to) : tensor));
        return part;
    }

    @TestFactory
    Stream<DynamicTest> callsInARowAreOneCall() {
        return each((runner, op) -> {
            for (var dtype : List.of(DType.F32, DType.BF16)) {
                var bound = CaseBuilder.bound(dtype);
                var inputs = inputs(op, dtype, 1, 84);
                var one = of(op, inputs);
                var expected = one.outputs();
                runner.results(one).forEach((output, value) -> assertClose(expected.get(output), value, bound, op + " " + output));
                var states = Map.<String, HostTensor>of();
                var from = 0;
                for (var to : new int[] {40, 83, 84}) {
                    var part = tokens(inputs, from, to);
                    part.putAll(states);
                    var results = runner.results(of(op, part));
                    assertClose(slice(expected.get("o"), 1, from, to), results.get("o"), bound, op + " o " + to);
                    var handedOver = new LinkedHashMap<String, HostTensor>();
                    STATES.forEach((output, input) -> {
                        if (results.containsKey(output)) {
                            handedOver.put(input, results.get(output));
                        }
                    });
                    states = handedOver;
                    from = to;
                }
                for (var state : STATES.entrySet()) {
                    if (expected.containsKey(state.getKey())) {
                        assertClose(expected.get(state.getKey()), states.get(state.getValue()), bound, op + " " + state.getKey());
                    }
                }
            }
        });
    }

    private static void assertClose(HostTensor expected, HostTensor actual, double bound, String what) {
        var difference = 0.0;
        var size = 0.0;
        for (var i = 0L; i < expected.elements(); i++) {
            difference += Math.pow(expected.get(i) - actual.get(i), 2);
            size += Math.pow(expected.get(i), 2);
        }
        var ratio = Math.sqrt(difference / Math.max(size, Double.MIN_NORMAL));
        assertTrue(ratio <= bound, () -> what + " is off by " + ratio);
    }

    @TestFactory
    Stream<DynamicTest> theFutureDoesNotTouchThePast() {
        return each((runner, op) -> {
            var length = 80;
            var inputs = inputs(op, DType.F16, 1, length);
            var before = runner.results(of(op, inputs)).get("o");
            for (var first : new int[] {1, 17, 64, 70}) {
                var changed = new LinkedHashMap<String, HostTensor>();
                inputs.forEach((name, tensor) -> changed.put(name, TOKENS.contains(name) ? scrambled(name, tensor, first) : tensor));
                var after = runner.results(of(op, changed)).get("o");
                assertTrue(slice(before, 1, 0, first).sameBits(slice(after, 1, 0, first)), () -> "tokens from " + first + " on");
                assertNotEquals(-1, before.data().mismatch(after.data()), "nothing was changed");
            }
        });
    }

    private static HostTensor scrambled(String name, HostTensor tensor, int first) {
        var copy = slice(tensor, 0, 0, (int) tensor.size(0));
        var row = tensor.elements() / tensor.size(1);
        for (var i = first * row; i < tensor.elements(); i++) {
            switch (name) {
                case "ids" -> {} // routes stay routes
                case "g" -> copy.set(i, -30);
                case "k" -> copy.set(i, -tensor.get(i)); // longer ones would have the delta rule's state grow past every number
                case "beta", "weights" -> copy.set(i, 1 - tensor.get(i));
                default -> copy.set(i, -40 * tensor.get(i) + 3);
            }
        }
        return copy;
    }

    @TestFactory
    Stream<DynamicTest> aSequenceIsTheSameInAnyBatch() {
        return each((runner, op) -> {
            var inputs = inputs(op, DType.BF16, 3, 70);
            var together = runner.results(builder(op, inputs).attribute("batch_invariant", true).build(DType.BF16));
            for (var n = 0; n < 3; n++) {
                var at = n;
                var own = new LinkedHashMap<String, HostTensor>();
                inputs.forEach((name, tensor) -> own.put(name, slice(tensor, 0, at, at + 1)));
                var alone = runner.results(builder(op, own).attribute("batch_invariant", true).build(DType.BF16));
                alone.forEach((output, value) -> assertTrue(value.sameBits(slice(together.get(output), 0, at, at + 1)),
                        () -> output + " of sequence " + at));
            }
        });
    }

    @TestFactory
    Stream<DynamicTest> rowsThatNobodyWritesStay() {
        return each((runner, op) -> {
            var rows = 6;
            var pool = inputs(op, DType.F32, rows, 0);
            for (var length : new int[] {1, 66}) {
                var inputs = inputs(op, DType.F32, 4, length);
                STATES.values().forEach(state -> inputs.computeIfPresent(state, (name, tensor) -> pool.get(name)));
                inputs.put("state_read_index", HostTensor.of(DType.I32, new long[] {4}, 5, -1, 2, 5));
                inputs.put("state_write_index", HostTensor.of(DType.I32, new long[] {4}, 0, 3, -1, 4));
                var results = runner.results(of(op, inputs));
                STATES.forEach((output, input) -> {
                    for (var row : new int[] {1, 2, 3, 5}) {
                        if (results.containsKey(output)) {
                            assertTrue(slice(pool.get(input), 0, row, row + 1).sameBits(slice(results.get(output), 0, row, row + 1)),
                                    () -> output + " row " + row);
                        }
                    }
                });
                var o = results.get("o");
                assertArrayEquals(new double[Math.toIntExact(o.elements() / 2)], slice(o, 0, 1, 3).doubles(), "outputs of skipped sequences");
            }
        });
    }
}
