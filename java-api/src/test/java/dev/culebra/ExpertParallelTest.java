package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The experts of a layer on one rank and on several: the same bits. */
class ExpertParallelTest {
    private static final int EXPERTS = 6;
    private static final int WIDTH = 64;
    private static final int INNER = 32;
    private static final int K = 2;
    private static final int MAX_TOKENS = 5;

    /** Numbers of all experts, and the tokens of two ranks. */
    private static final class Layer {
        final float[] w13;
        final float[] w2;
        final float[][] x = new float[2][];
        final float[][] weights = new float[2][];
        final int[][] ids = new int[2][];

        Layer(long seed, int... tokens) {
            var random = new Random(seed);
            w13 = normal(random, EXPERTS * 2 * INNER * WIDTH, 0.2);
            w2 = normal(random, EXPERTS * WIDTH * INNER, 0.2);
            for (var r = 0; r < 2; r++) {
                x[r] = normal(random, tokens[r] * WIDTH, 1);
                weights[r] = normal(random, tokens[r] * K, 1);
                ids[r] = random.ints(tokens[r] * K, -1, EXPERTS).toArray();
            }
        }

        private static float[] normal(Random random, int count, double deviation) {
            var values = new float[count];
            for (var i = 0; i < count; i++) {
                values[i] = (float) (deviation * random.nextGaussian());
            }
            return values;
        }

        /** The matrices of these experts. */
        static float[] of(float[] all, List<Integer> experts) {
            var size = all.length / EXPERTS;
            var some = new float[experts.size() * size];
            for (var i = 0; i < experts.size(); i++) {
                System.arraycopy(all, experts.get(i) * size, some, i * size, size);
            }
            return some;
        }

        ExpertWeights experts(Scope scope, Stream stream, List<Integer> experts) {
            return ExpertWeights.half(
                    scope.floats(stream, DType.BF16, of(w13, experts), experts.size(), 2 * INNER, WIDTH),
                    scope.floats(stream, DType.BF16, of(w2, experts), experts.size(), WIDTH, INNER));
        }
    }

    private interface Work {
        float[] run(TestRank rank, ExpertParallel parallel, Tensor x, ExpertWeights experts, Tensor weights, Tensor ids, Tensor y);
    }

    /** What `work` leaves on `rank`, with the tokens of rank `tokensOf`. */
    private static float[] run(TestRank rank, int tokensOf, Layer layer, ExpertParallelOptions options, Work work) {
        var stream = rank.stream.batchInvariant(true);
        try (var scope = rank.device.openScope()) {
            var parallel = new ExpertParallel(rank.communicator, scope, stream, options);
            var tokens = layer.ids[tokensOf].length / K;
            var x = scope.floats(stream, DType.BF16, layer.x[tokensOf], tokens, WIDTH);
            var weights = scope.floats(stream, layer.weights[tokensOf], tokens, K);
            var ids = scope.ints(stream, layer.ids[tokensOf], tokens, K);
            var y = scope.allocate(DType.BF16, tokens, WIDTH);
            var experts = layer.experts(scope, stream, options.expertsOf(rank.communicator.rank()));
            return work.run(rank, parallel, x, experts, weights, ids, y);
        }
    }

    private static float[] once(
            TestRank rank, ExpertParallel parallel, Tensor x, ExpertWeights experts, Tensor weights, Tensor ids, Tensor y) {
        parallel.mlp(rank.stream, x, experts, weights, ids, y, ExpertActivation.SILU);
        return y.floats(rank.stream);
    }

    /** Both ranks' results, each in a thread of its own. */
    private static List<float[]> twoRanks(String backend, Layer layer, ExpertParallelOptions options, Work work) throws Exception {
        try (var a = new TestRank(backend, 0, 2, null, Communicator.DEFAULT_TIMEOUT);
                var b = new TestRank(backend, 1, 2, a.id, Communicator.DEFAULT_TIMEOUT);
                var threads = Executors.newFixedThreadPool(2)) {
            List<Future<float[]>> futures = new ArrayList<>();
            for (var rank : List.of(a, b)) {
                futures.add(threads.submit(() -> run(rank, rank.communicator.rank(), layer, options, work)));
            }
            var results = new ArrayList<float[]>();
            for (var future : futures) {
                try {
                    results.add(future.get());
                } catch (ExecutionException e) {
                    a.failed = b.failed = true;
                    throw e;
                }
            }
            return results;
        }
    }

    private static float[] oneRank(String backend, int tokensOf, Layer layer) {
        try (var rank = new TestRank(backend, 0, 1, null, Communicator.DEFAULT_TIMEOUT)) {
            return run(rank, tokensOf, layer, ExpertParallelOptions.even(EXPERTS, 1, K, WIDTH, DType.BF16, MAX_TOKENS),
                    ExpertParallelTest::once);
        }
    }

    private static List<ExpertParallelOptions> placements() {
        return List.of(
                ExpertParallelOptions.even(EXPERTS, 2, K, WIDTH, DType.BF16, MAX_TOKENS),
                ExpertParallelOptions.placed(List.of(1, 0, 1, 1, 0, 1), K, WIDTH, DType.BF16, MAX_TOKENS),
                ExpertParallelOptions.placed(List.of(0, 0, 0, 0, 0, 0), K, WIDTH, DType.BF16, MAX_TOKENS)); // none on rank 1
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void ranksDoNotChangeABit(String backend) throws Exception {
        var layers = backend.equals("cpu")
                ? List.of(new Layer(1, 5, 3), new Layer(2, 0, 4), new Layer(3, 1, 1)) : List.of(new Layer(1, 2, 3));
        for (var layer : layers) {
            for (var options : placements()) {
                var results = twoRanks(backend, layer, options, ExpertParallelTest::once);
                for (var r = 0; r < 2; r++) {
                    assertArrayEquals(oneRank(backend, r, layer), results.get(r), "rank " + r);
                }
            }
        }
    }

    /** One rank alone computes what moe_mlp does, but for the rounding of each expert's output. */
    @Test
    void oneRankIsTheMlp() {
        var layer = new Layer(4, 5, 0);
        var parallel = oneRank("cpu", 0, layer);
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var y = scope.allocate(DType.BF16, 5, WIDTH);
            Ops.moeMlp(stream, scope.floats(stream, DType.BF16, layer.x[0], 5, WIDTH),
                    layer.experts(scope, stream, IntStream.range(0, EXPERTS).boxed().toList()),
                    scope.floats(stream, layer.weights[0], 5, K), scope.ints(stream, layer.ids[0], 5, K), y, ExpertActivation.SILU);
            var expected = y.floats(stream);
            var square = 0.0;
            var error = 0.0;
            for (var i = 0; i < expected.length; i++) {
                square += (double) expected[i] * expected[i];
                error += Math.pow((double) expected[i] - parallel[i], 2);
            }
            assertTrue(square > 0 && Math.sqrt(error / square) < 5e-3, "ratio " + Math.sqrt(error / square));
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aGraphRepeatsIt(String backend) throws Exception {
        var layer = new Layer(5, 2, 3);
        var results = twoRanks(backend, layer, placements().getFirst(), (rank, parallel, x, experts, weights, ids, y) -> {
            rank.stream.reserveWorkspace(16 << 20);
            Runnable work = () -> parallel.mlp(rank.stream, x, experts, weights, ids, y, ExpertActivation.SILU);
            try (var graph = rank.stream.capture(work); var prepared = rank.stream.prepare(work)) {
                graph.launch(rank.stream);
                y.fill(rank.stream, 0xFF);
                graph.launch(rank.stream);
                var fromGraph = y.floats(rank.stream);
                y.fill(rank.stream, 0xFF);
                prepared.run();
                assertArrayEquals(fromGraph, y.floats(rank.stream));
                return fromGraph;
            }
        });
        for (var r = 0; r < 2; r++) {
            assertArrayEquals(oneRank(backend, r, layer), results.get(r), "rank " + r);
        }
    }

    /** Tokens without room are NaN, all others as ever, and the count says how much there should have been. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aLackOfRoomShows(String backend) throws Exception {
        var layer = new Layer(6, 3, 3);
        layer.ids[0] = new int[] {0, 5, 1, 4, 2, -1}; // three rows for rank 0, of which two have room
        layer.ids[1] = new int[] {0, 5, 1, 4, 2, 3}; // three for each
        var wanted = new int[] {3, 3};
        var results = twoRanks(backend, layer, placements().getFirst().withCapacity(2), (rank, parallel, x, experts, weights, ids, y) -> {
            var result = once(rank, parallel, x, experts, weights, ids, y);
            assertEquals(2, parallel.capacity());
            var error = assertThrows(UnsupportedException.class, () -> parallel.requireRoom(rank.stream));
            assertTrue(error.getMessage().contains("rank 0 was to get " + wanted[rank.communicator.rank()] + " rows but capacity is 2"),
                    error.getMessage());
            return result;
        });
        for (var r = 0; r < 2; r++) {
            var full = oneRank(backend, r, layer);
            for (var t = 0; t < 3; t++) {
                for (var i = 0; i < WIDTH; i++) {
                    var value = results.get(r)[t * WIDTH + i];
                    if (t == 2) {
                        assertTrue(Float.isNaN(value), "token " + t + " of rank " + r);
                    } else {
                        assertEquals(full[t * WIDTH + i], value, "token " + t + " of rank " + r);
                    }
                }
            }
        }
    }

    @Test
    void roomIsEnoughByDefault() {
        var layer = new Layer(7, 5, 0);
        try (var rank = new TestRank("cpu", 0, 1, null, Communicator.DEFAULT_TIMEOUT)) {
            run(rank, 0, layer, ExpertParallelOptions.even(EXPERTS, 1, K, WIDTH, DType.BF16, MAX_TOKENS),
                    (on, parallel, x, experts, weights, ids, y) -> {
                        assertEquals(MAX_TOKENS * K, parallel.capacity());
                        var result = once(on, parallel, x, experts, weights, ids, y);
                        var some = IntStream.of(layer.ids[0]).filter(id -> id >= 0).count();
                        assertArrayEquals(new int[] {(int) some}, parallel.requireRoom(on.stream));
                        assertFalse(Float.isNaN(result[0]));
                        return result;
                    });
        }
    }

    @Test
    void optionsAreChecked() {
        try (var rank = new TestRank("cpu", 0, 1, null, Communicator.DEFAULT_TIMEOUT); var scope = rank.device.openScope()) {
            var good = ExpertParallelOptions.even(EXPERTS, 1, K, WIDTH, DType.BF16, MAX_TOKENS);
            assertRefused(rank, scope, ExpertParallelOptions.even(EXPERTS, 2, K, WIDTH, DType.BF16, 1), "expert 3 is on rank 1");
            assertRefused(rank, scope, ExpertParallelOptions.even(EXPERTS, 1, 0, WIDTH, DType.BF16, 1), "k is 0");
            assertRefused(rank, scope, ExpertParallelOptions.even(EXPERTS, 1, K, WIDTH, DType.F32, 1), "dtype is f32");
            assertRefused(rank, scope, good.withCapacity(-1), "capacity is -1");
            var parallel = new ExpertParallel(rank.communicator, scope, rank.stream, good);
            var x = scope.zeros(rank.stream, DType.BF16, MAX_TOKENS + 1, WIDTH);
            var ids = scope.zeros(rank.stream, DType.I32, MAX_TOKENS + 1, K);
            var error = assertThrows(ArgumentException.class, () -> parallel.dispatch(rank.stream, x, ids));
            assertTrue(error.getMessage().contains("x has 6 tokens; maxTokens is 5"), error.getMessage());
            assertEquals(List.of(1, 4), placements().get(1).expertsOf(0));
        }
    }

    private static void assertRefused(TestRank rank, Scope scope, ExpertParallelOptions options, String fragment) {
        var error = assertThrows(ArgumentException.class,
                () -> new ExpertParallel(rank.communicator, scope, rank.stream, options));
        assertTrue(error.getMessage().contains(fragment), error.getMessage());
    }
}
