package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

@SuppressWarnings("try") // closed twice, or held open only
class GraphTest {
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void repeatsWhatWasCaptured(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var other = device.openStream();
                var scope = device.openScope()) {
            var inPlace = new InPlace(scope, stream, 3);
            var x = scope.floats(stream, new float[] {16, 32, 48}, 1, 3);
            var y = scope.zeros(stream, DType.F32, 1, 3);
            try (var graph = stream.capture(() -> {
                inPlace.halve(stream, x);
                inPlace.add(stream, x, y);
            })) {
                assertArrayEquals(new float[] {16, 32, 48}, x.floats(stream), "captured work does not run");
                assertTrue(graph.nodes() >= 2);
                graph.launch(stream);
                graph.launch(stream);
                assertArrayEquals(new float[] {4, 8, 12}, x.floats(stream));
                assertArrayEquals(new float[] {12, 24, 36}, y.floats(stream));
                graph.launch(stream);
                graph.launch(other);
                assertArrayEquals(new float[] {1, 2, 3}, x.floats(other), "one launch after the other");
                x.setFloats(stream, 4, 4, 4);
                graph.launch(stream);
            }
            assertArrayEquals(new float[] {2, 2, 2}, x.floats(stream), "closed only when it has run");
        }
    }

    /** What is open on a stream must end with its call, even if another thread is in the stream at that moment. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void anIntruderLeavesNothingOpen(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 4);
            var one = scope.floats(stream, new float[] {1, 1, 1, 1}, 4);
            Runnable work = () -> {
                Ops.copyStrided(stream, one, x);
                occupy(stream);
            };
            assertThrows(ConcurrentUseException.class, () -> stream.capture(work));
            assertThrows(ConcurrentUseException.class, () -> stream.prepare(work));
            stream.plan(work);
            stream.plan(() -> {
                assertThrows(UnsupportedException.class, () -> stream.plan(work));
                Ops.copyStrided(stream, one, x);
            });
            assertArrayEquals(new float[4], x.floats(stream), "nothing ran");
            stream.capture(() -> Ops.copyStrided(stream, one, x)).close();
            Ops.copyStrided(stream, one, x);
            assertArrayEquals(new float[] {1, 1, 1, 1}, x.floats(stream), "what is called now runs");
        }
    }

    /** Returns when another thread is in the stream, for a moment. */
    private static void occupy(Stream stream) {
        var inside = new CountDownLatch(1);
        Thread.ofPlatform().start(() -> {
            stream.enter("intruder");
            inside.countDown();
            LockSupport.parkNanos(50_000_000);
            stream.exit();
        });
        while (inside.getCount() > 0) {
            Thread.onSpinWait();
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void allocationAndWaitingAreRefused(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope();
                var event = device.openEvent()) {
            var x = scope.zeros(stream, DType.F32, 3);
            var y = scope.zeros(stream, DType.F32, 3);
            for (Runnable work : new Runnable[] {
                stream::synchronize,
                stream::isDone,
                () -> stream.record(event),
                () -> x.setFloats(stream, 1, 2, 3),
                () -> x.floats(stream),
                () -> stream.reserveWorkspace(1 << 20),
                () -> stream.capture(() -> {}),
            }) {
                assertThrows(UnsupportedException.class, () -> stream.capture(work));
                // The capture is over, and the stream works.
                Ops.add(stream, x, x, y);
                stream.synchronize();
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aRefusedCaptureLeavesTheOuterOneOpen(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 3);
            try (var graph = stream.capture(() -> {
                assertThrows(UnsupportedException.class, () -> stream.capture(() -> {}));
                x.fill(stream, 1);
            })) {
                assertArrayEquals(new float[3], x.floats(stream));
                assertEquals(1, graph.nodes());
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void replayAfterCloseIsRefused(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 3);
            var y = scope.zeros(stream, DType.F32, 3);
            try (var graph = stream.capture(() -> {
                Ops.add(stream, x, x, y);
                // A view that lives for the time of the capture: what counts is the memory.
                try (var view = y.slice(0, 0, 2)) {
                    view.zero(stream);
                }
            })) {
                graph.launch(stream);
                x.close();
                var error = assertThrows(ClosedException.class, () -> graph.launch(stream));
                assertTrue(error.getMessage().contains("f32[3]"), error.getMessage());
                stream.synchronize();
                graph.close();
                graph.close();
                assertThrows(ClosedException.class, () -> graph.launch(stream));
                assertThrows(ClosedException.class, graph::nodes);
            }
            assertEquals(1, device.memory().statistics().liveAllocations());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void closedDuringACaptureIsFreedBehindIt(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 3);
            try (var graph = stream.capture(() -> {
                try (var inner = scope.openScope()) {
                    x.moveTo(inner);
                    x.fill(stream, 1);
                }
                assertEquals(1, device.memory().statistics().liveAllocations());
            })) {
                assertThrows(ClosedException.class, () -> graph.launch(stream));
            }
            stream.synchronize();
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void graphsOwnTheirWorkspace(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            stream.reserveWorkspace(1);
            var x = scope.zeros(stream, DType.F32, 3);
            var graph = stream.capture(() -> x.fill(stream, 1));
            assertEquals(0, stream.workspaceBytes());
            assertEquals(2, device.memory().statistics().liveAllocations());
            graph.launch(stream);
            graph.close();
            stream.synchronize();
            assertEquals(1, device.memory().statistics().liveAllocations());
        }
    }
}
