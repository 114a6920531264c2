package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import dev.culebra.CheckpointWeights;
import dev.culebra.DType;
import dev.culebra.Epilogue;
import dev.culebra.Gelu;
import dev.culebra.Ops;
import dev.culebra.WeightFormat;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** A layer's worth of operators, captured once and replayed on other inputs: the bits of direct calls. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class GraphSuite {
    abstract List<String> backends();

    @ParameterizedTest
    @MethodSource("backends")
    void aReplayGivesTheBitsOfDirectCalls(String backend) {
        try (var on = new TestDevice(backend)) {
            var stream = on.stream;
            var tokens = 5;
            var width = 128;
            var table = on.normal(DType.F16, 30, width);
            var ids = on.scope.ints(stream, new int[tokens], tokens);
            var x = on.zeros(DType.F16, tokens, width);
            var residual = on.normal(DType.F16, tokens, width);
            var gain = on.normal(DType.F16, width);
            var h = on.zeros(DType.F16, tokens, width);
            var c = on.zeros(DType.F16, tokens, 2 * width);
            var y = on.zeros(DType.F16, tokens, width);
            var scores = on.zeros(DType.F16, tokens, width);
            var best = on.zeros(DType.I32, tokens);
            var checkpoint = PackedGemmCases.checkpoint(on.random, 4, 2 * width, width, 64, DType.F16, true, false, false);
            var tensors = checkpoint.encode(WeightFormat.PLAIN, false, false);
            var weights = Ops.packWeights(stream, on.scope, CheckpointWeights.of(
                    WeightFormat.PLAIN, 4, 64, on.upload(tensors.get("q")), on.upload(tensors.get("scales")), null, null));
            Runnable layer = () -> {
                Ops.embedding(stream, table, ids, x);
                Ops.rmsNorm(stream, x, gain, residual, h, x, 1e-6f, true);
                Ops.w4a16Gemm(stream, h, weights, null, c, Epilogue.NONE);
                Ops.siluMul(stream, c.slice(1, 0, width), c.slice(1, width, 2 * width), y);
                Ops.geluMul(stream, y, h, y, Gelu.ERF);
                Ops.sigmoidMul(stream, y, h, y);
                Ops.add(stream, y, x, h);
                Ops.scale(stream, h, y, 0.5f);
                Ops.layerNorm(stream, y, gain, null, y, 1e-5f);
                Ops.softmax(stream, y, scores);
                Ops.argmax(stream, scores, best);
            };
            layer.run(); // grows the workspace
            try (var graph = stream.capture(layer)) {
                assertEquals(11, graph.nodes());
                byte[] before = null;
                for (var round = 0; round < 4; round++) {
                    var seed = round;
                    ids.setInts(stream, on.random.ints(tokens, 0, 30).map(id -> (id + seed) % 30).toArray());
                    layer.run();
                    var direct = scores.bytes(stream);
                    var directBest = best.ints(stream);
                    scores.zero(stream);
                    best.zero(stream);
                    graph.launch(stream);
                    assertArrayEquals(direct, scores.bytes(stream));
                    assertArrayEquals(directBest, best.ints(stream));
                    assertFalse(Arrays.equals(before, direct), "the inputs made no difference");
                    before = direct;
                }
            }
        }
    }
}
