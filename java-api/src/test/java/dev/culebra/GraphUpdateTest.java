package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Graphs that take another recording over, and a cache of them. */
@SuppressWarnings("try") // closed early, or held open only
class GraphUpdateTest {
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void anUpdateReplacesWhatIsRepeated(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var other = device.openStream();
                var scope = device.openScope()) {
            var inPlace = new InPlace(scope, stream, 2);
            var x = scope.floats(stream, new float[] {64, 32}, 1, 2);
            var z = scope.floats(stream, new float[] {64, 32}, 1, 2);
            try (var graph = stream.capture(() -> inPlace.halve(stream, x))) {
                graph.launch(other);
                assertTrue(graph.update(stream, () -> {
                    inPlace.halve(stream, z);
                    inPlace.halve(stream, z);
                }) || backend.equals("cuda"));
                assertEquals(2, graph.nodes());
                assertArrayEquals(new float[] {32, 16}, x.floats(other), "what was queued ran as it was");
                assertArrayEquals(new float[] {64, 32}, z.floats(stream), "captured work does not run");
                graph.launch(stream);
                graph.launch(other);
                assertArrayEquals(new float[] {4, 2}, z.floats(other));
                x.close();
                graph.launch(stream); // it no longer uses x
                z.close();
                assertThrows(ClosedException.class, () -> graph.launch(stream));
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aFailedUpdateLeavesTheGraph(String backend) {
        try (var device = Device.open(backend); var elsewhere = Device.open(backend); var stream = device.openStream();
                var foreign = elsewhere.openStream(); var scope = device.openScope()) {
            var inPlace = new InPlace(scope, stream, 2);
            var x = scope.floats(stream, new float[] {64, 32}, 1, 2);
            stream.reserveWorkspace(1 << 20);
            var graph = stream.capture(() -> inPlace.halve(stream, x));
            stream.reserveWorkspace(1);
            assertThrows(UnsupportedException.class, () -> graph.update(stream, stream::synchronize));
            assertThrows(IllegalStateException.class, () -> graph.update(stream, () -> {
                inPlace.halve(stream, x);
                throw new IllegalStateException("as planned");
            }));
            assertThrows(ArgumentException.class, () -> graph.update(foreign, () -> {}));
            assertThrows(UnsupportedException.class, () -> stream.capture(() -> graph.update(stream, () -> {})));
            graph.launch(stream);
            assertArrayEquals(new float[] {32, 16}, x.floats(stream));
            graph.close();
            assertThrows(ClosedException.class, () -> graph.update(stream, () -> {}));
        }
    }

    /** Two workspaces, before and behind, whoever has which. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void workspacesAreNeitherLostNorFreedTwice(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 4);
            stream.reserveWorkspace(3 << 20);
            var graph = stream.capture(() -> x.fill(stream, 1));
            assertEquals(2, device.memory().statistics().liveAllocations());
            stream.reserveWorkspace(1 << 20);
            graph.update(stream, () -> {
                assertEquals(3 << 20, stream.workspaceBytes(), "the larger one: the graph's own");
                x.fill(stream, 2);
            });
            assertEquals(1 << 20, stream.workspaceBytes());
            stream.reserveWorkspace(5 << 20);
            graph.update(stream, () -> {
                assertEquals(5 << 20, stream.workspaceBytes(), "the larger one: the stream's");
                x.fill(stream, 3);
            });
            assertEquals(3 << 20, stream.workspaceBytes());
            graph.launch(stream);
            stream.synchronize();
            assertEquals(3, device.memory().statistics().liveAllocations());
            graph.close();
            stream.close();
            scope.close();
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aCacheCapturesWhatComesAgain(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope();
                var cache = new GraphCache<Integer>(stream, 2)) {
            var inPlace = new InPlace[] {new InPlace(scope, stream, 1), new InPlace(scope, stream, 2),
                new InPlace(scope, stream, 3)};
            var x = new Tensor[3];
            for (var i = 0; i < 3; i++) {
                x[i] = scope.allocate(DType.F32, 1, i + 1);
                x[i].fill(stream, 0x44);
            }
            var begin = x[2].floats(stream)[2];
            var calls = new int[1];
            int[] keys = {0, 0, 0, 1, 1, 1, 2, 2, 1, 0, 0};
            for (var key : keys) {
                cache.run(key, () -> {
                    calls[0]++;
                    inPlace[key].halve(stream, x[key]);
                });
            }
            // 0, 1 and 2 run once and are captured once; 2 takes the graph of 0, which is new again at the end and takes 2's.
            assertEquals(8, calls[0]);
            assertEquals(4, cache.captures());
            assertEquals(2, cache.size());
            assertEquals(begin / 32, x[0].floats(stream)[0]);
            assertEquals(begin / 16, x[1].floats(stream)[1]);
            assertEquals(begin / 4, x[2].floats(stream)[2]);
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aCacheRecordsAnewWhenTensorsWereClosed(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var cache = new GraphCache<String>(stream, 1);
            var inPlace = new InPlace(scope, stream, 2);
            for (var round = 0; round < 3; round++) {
                try (var x = scope.floats(stream, new float[] {8, 16}, 1, 2)) {
                    cache.run("one", () -> inPlace.halve(stream, x));
                    cache.run("one", () -> inPlace.halve(stream, x));
                    assertArrayEquals(new float[] {2, 4}, x.floats(stream), "round " + round);
                }
            }
            assertEquals(3, cache.captures());
            cache.close();
            assertThrows(ClosedException.class, () -> cache.run("one", () -> {}));
            assertThrows(ArgumentException.class, () -> new GraphCache<String>(stream, 0));
        }
    }
}
