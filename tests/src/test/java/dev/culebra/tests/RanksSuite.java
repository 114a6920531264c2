package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.Backend;
import dev.culebra.Communicator;
import dev.culebra.CommunicatorId;
import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.ExpertActivation;
import dev.culebra.ExpertParallel;
import dev.culebra.ExpertParallelOptions;
import dev.culebra.ExpertWeights;
import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.UnsupportedException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Experts on two ranks, a thread and a device each, and on one: the same bits, which are those of the operators within the rounding of
 * experts' outputs. A machine with one GPU has but the one rank; one without NCCL has to say so.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class RanksSuite {
    private static final int EXPERTS = 4;
    private static final int K = 2;
    private static final int WIDTH = 128;
    private static final int INNER = 64;
    private static final int TOKENS = 3;

    abstract List<String> backends();

    @ParameterizedTest
    @MethodSource("backends")
    void expertsAreTheSameOnAnyRank(String backend) throws Exception {
        var expected = alone(backend);
        float[] one;
        try {
            one = together(backend, 1).getFirst();
        } catch (UnsupportedException e) {
            assertTrue(backend.equals("cuda") && e.getMessage().contains("NCCL"), e.getMessage());
            return;
        }
        var square = 0.0;
        var error = 0.0;
        for (var i = 0; i < one.length; i++) {
            square += (double) expected[i] * expected[i];
            error += Math.pow((double) expected[i] - one[i], 2);
        }
        assertTrue(Math.sqrt(error / square) < 5e-3, "rms ratio " + Math.sqrt(error / square));
        if (!backend.equals("cuda") || gpus() > 1) {
            for (var result : together(backend, 2)) {
                assertArrayEquals(one, result);
            }
        }
    }

    private static int gpus() {
        return Device.available().stream().filter(a -> a.backend() == Backend.CUDA).findFirst().orElseThrow().devices();
    }

    private static Device open(String backend, int rank) {
        return Device.open(backend.equals("cuda") ? backend + ":" + rank : backend);
    }

    private static float[] alone(String backend) {
        try (var device = open(backend, 0); var stream = device.openStream(); var scope = device.openScope()) {
            var layer = new Layer(scope, stream, IntStream.range(0, EXPERTS).boxed().toList());
            Ops.moeMlp(stream, layer.x, layer.experts, layer.weights, layer.ids, layer.y, ExpertActivation.SILU);
            return layer.y.floats(stream);
        }
    }

    /** Every rank's result; all have the same tokens. */
    private static List<float[]> together(String backend, int ranks) throws Exception {
        CommunicatorId id;
        try (var device = open(backend, 0)) {
            id = CommunicatorId.create(device);
        }
        var results = new ArrayList<float[]>();
        try (var threads = Executors.newFixedThreadPool(ranks)) {
            List<Future<float[]>> futures = new ArrayList<>();
            for (var rank = 0; rank < ranks; rank++) {
                var number = rank;
                futures.add(threads.submit(() -> rank(backend, id, number, ranks)));
            }
            for (var future : futures) {
                results.add(future.get());
            }
        }
        return results;
    }

    private static float[] rank(String backend, CommunicatorId id, int rank, int ranks) {
        try (var device = open(backend, rank); var stream = device.openStream().batchInvariant(true); var scope = device.openScope();
                var communicator = Communicator.join(device, id, rank, ranks)) {
            var options = ExpertParallelOptions.placed(
                    IntStream.range(0, EXPERTS).mapToObj(expert -> expert % ranks).toList(), K, WIDTH, DType.BF16, TOKENS);
            var layer = new Layer(scope, stream, options.expertsOf(rank));
            var parallel = new ExpertParallel(communicator, scope, stream, options);
            parallel.mlp(stream, layer.x, layer.experts, layer.weights, layer.ids, layer.y, ExpertActivation.SILU);
            var result = layer.y.floats(stream);
            parallel.requireRoom(stream);
            return result;
        }
    }

    /** The same numbers wherever it is made. */
    private static final class Layer {
        final Tensor x;
        final Tensor weights;
        final Tensor ids;
        final Tensor y;
        final ExpertWeights experts;

        Layer(Scope scope, Stream stream, List<Integer> mine) {
            x = scope.floats(stream, DType.BF16, normal(1, TOKENS * WIDTH, 1), TOKENS, WIDTH);
            weights = scope.floats(stream, normal(2, TOKENS * K, 1), TOKENS, K);
            ids = scope.ints(stream, new int[] {0, 3, 2, 1, 3, -1}, TOKENS, K);
            y = scope.allocate(DType.BF16, TOKENS, WIDTH);
            experts = ExpertWeights.half(matrices(scope, stream, mine, 10, 2 * INNER, WIDTH), matrices(scope, stream, mine, 20, WIDTH, INNER));
        }

        private static Tensor matrices(Scope scope, Stream stream, List<Integer> mine, int seed, int rows, int columns) {
            var all = new float[mine.size() * rows * columns];
            for (var i = 0; i < mine.size(); i++) {
                System.arraycopy(normal(seed + mine.get(i), rows * columns, 0.1), 0, all, i * rows * columns, rows * columns);
            }
            return scope.floats(stream, DType.BF16, all, mine.size(), rows, columns);
        }

        private static float[] normal(long seed, int count, double deviation) {
            var random = new Random(seed);
            var values = new float[count];
            for (var i = 0; i < count; i++) {
                values[i] = (float) (deviation * random.nextGaussian());
            }
            return values;
        }
    }
}
