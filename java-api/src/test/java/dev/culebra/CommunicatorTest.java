package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.time.temporal.ChronoUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

@SuppressWarnings("try") // closed twice, or held open only
class CommunicatorTest {
    private static final Duration SHORT = Duration.ofMillis(100);

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void blocksGoToTheirRanks(String backend) {
        try (var a = new TestRank(backend, 0, 2, null, Communicator.DEFAULT_TIMEOUT);
                var b = new TestRank(backend, 1, 2, a.id, Communicator.DEFAULT_TIMEOUT)) {
            assertEquals("rank 1 of 2 on " + b.device, b.communicator.toString());
            a.exchange(1, 2);
            b.exchange(3, 4);
            assertArrayEquals(new float[] {1, 3}, a.received());
            assertArrayEquals(new float[] {2, 4}, b.received());
        }
    }

    /** A prepared exchange keeps its group open no longer than it is open itself. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void preparedAndCapturedExchangesRepeat(String backend) {
        try (var a = new TestRank(backend, 0, 2, null, Communicator.DEFAULT_TIMEOUT);
                var b = new TestRank(backend, 1, 2, a.id, Communicator.DEFAULT_TIMEOUT)) {
            var prepared = a.stream.prepare(() -> a.communicator.allToAll(a.stream, a.send, a.recv));
            var graph = b.stream.capture(() -> b.communicator.allToAll(b.stream, b.send, b.recv));
            for (var round = 0; round < 3; round++) {
                a.send.setFloats(a.stream, round, 10 + round);
                b.send.setFloats(b.stream, 20 + round, 30 + round);
                prepared.run();
                graph.launch(b.stream);
                assertArrayEquals(new float[] {round, 20 + round}, a.received());
                assertArrayEquals(new float[] {10 + round, 30 + round}, b.received());
            }
            a.communicator.close();
            assertThrows(ClosedException.class, prepared::run);
            prepared.close();
            graph.close();
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void refusals(String backend) {
        try (var a = new TestRank(backend, 0, 2, null, SHORT); var other = Device.open(backend);
                var foreign = other.openStream(); var scope = a.device.openScope()) {
            assertRefused(Status.RANGE, "rank is 2", () -> Communicator.join(other, a.id, 2, 2));
            assertRefused(Status.RANGE, "rank 0 of this id was taken", () -> Communicator.join(other, a.id, 0, 2));
            assertRefused(Status.RANGE, "another rank of this id said 2", () -> Communicator.join(other, a.id, 1, 3));
            assertRefused(Status.RANGE, "timeout_ms is 0", () -> Communicator.join(other, a.id, 1, 2, Duration.ZERO));
            assertRefused(Status.RANGE, "the id is none of " + backend,
                    () -> Communicator.join(other, CommunicatorId.of(new byte[128]), 1, 2));
            assertThrows(IllegalArgumentException.class, () -> CommunicatorId.of(new byte[3]));
            assertArrayEquals(a.id.bytes(), CommunicatorId.of(a.id.bytes()).bytes());

            var three = scope.zeros(a.stream, DType.F32, 3, 1);
            assertRefused(Status.SHAPE, "send is [3, 1]", () -> a.communicator.allToAll(a.stream, three, three));
            assertRefused(Status.SHAPE, "recv is [3, 1]", () -> a.communicator.allToAll(a.stream, a.send, three));
            assertRefused(Status.NULL_POINTER, "also_recv is required",
                    () -> a.communicator.allToAll(a.stream, a.send, a.recv, three, null));
            assertRefused(Status.DEVICE, "the communicator is of",
                    () -> a.communicator.allToAll(foreign, a.send, a.recv));
            assertThrows(UnsupportedException.class, () -> a.communicator.allToAll(a.stream, a.send, a.send));
            a.communicator.close();
            a.communicator.close();
            assertTrue(a.communicator.isClosed());
            var closed = assertThrows(ClosedException.class, () -> a.exchange(1, 2));
            assertTrue(closed.getMessage().contains("rank 0 of 2"), closed.getMessage());
            assertThrows(ClosedException.class, a.communicator::abort);
        }
    }

    @Test
    void whoHasAllTheTimeMayWait() {
        try (var device = Device.open("cpu");
                var alone = Communicator.join(device, CommunicatorId.create(device), 0, 1, ChronoUnit.FOREVER.getDuration())) {
            assertEquals(1, alone.ranks());
        }
    }

    private static void assertRefused(Status status, String fragment, Runnable call) {
        var error = assertThrows(ArgumentException.class, call::run);
        assertEquals(status, error.status());
        assertTrue(error.getMessage().contains(fragment), error.getMessage());
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void whoWaitsIsToldWhy(String backend) {
        try (var a = new TestRank(backend, 0, 2, null, SHORT); var b = new TestRank(backend, 1, 2, a.id, SHORT)) {
            a.exchange(1, 2);
            assertFailed(a, "rank 1 of 2 did not come to exchange 1 within 100 ms");
            assertThrows(UnsupportedException.class, () -> b.exchange(1, 2)); // its device is well
        }
        try (var a = new TestRank(backend, 0, 2, null, Communicator.DEFAULT_TIMEOUT);
                var b = new TestRank(backend, 1, 2, a.id, Communicator.DEFAULT_TIMEOUT)) {
            a.exchange(1, 2);
            b.device.close();
            assertFailed(a, "rank 1 left the group before exchange 1");
        }
        try (var a = new TestRank(backend, 0, 2, null, Communicator.DEFAULT_TIMEOUT);
                var b = new TestRank(backend, 1, 2, a.id, Communicator.DEFAULT_TIMEOUT); var scope = b.device.openScope()) {
            a.exchange(1, 2);
            var pairs = scope.zeros(b.stream, DType.F32, 2, 2);
            b.communicator.allToAll(b.stream, pairs, scope.zeros(b.stream, DType.F32, 2, 2));
            assertFailed(a, "blocks of 4 bytes, rank 1 of 8");
            assertFailed(b, "blocks of 4 bytes, rank 1 of 8");
        }
    }

    private static void assertFailed(TestRank rank, String fragment) {
        var error = assertThrows(DeviceFailedException.class, rank.stream::synchronize);
        assertTrue(error.getMessage().contains(fragment), error.getMessage());
        rank.failed = true;
    }

    @Test
    void anAbortEndsTheWait() throws Exception {
        try (var a = new TestRank("cpu", 0, 2, null, Communicator.DEFAULT_TIMEOUT);
                var b = new TestRank("cpu", 1, 2, a.id, Communicator.DEFAULT_TIMEOUT)) {
            a.exchange(1, 2);
            b.communicator.abort();
            assertFailed(a, "rank 1 aborted the group");
        }
    }
}
