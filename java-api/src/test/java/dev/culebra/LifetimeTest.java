package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

@SuppressWarnings("try") // closed twice, or held open only
class LifetimeTest {
    private static final DeviceOptions POISON = DeviceOptions.DEFAULT.withPoison(true);

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void useAfterCloseNamesTheTensor(String backend) {
        try (var device = Device.open(backend,
                POISON); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 2, 3);
            x.close();
            x.close();
            assertTrue(x.isClosed());
            var error = assertThrows(ClosedException.class, () -> Ops.scale(stream, x, x, 2));
            assertTrue(error.getMessage().startsWith("scale: x, tensor #"), error.getMessage());
            assertTrue(error.getMessage().contains("f32[2, 3]"), error.getMessage());
            assertTrue(error.getMessage().contains("LifetimeTest"), "the place where it was made: "
                    + error.getMessage());
            assertThrows(ClosedException.class, () -> x.slice(0, 0, 1));
            assertThrows(ClosedException.class, () -> x.floats(stream));
            assertThrows(ClosedException.class, () -> x.zero(stream));
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void scopesCloseWhatTheyOwn(String backend) {
        try (var device = Device.open(backend, POISON); var stream = device.openStream()) {
            var scope = device.openScope();
            var inner = scope.openScope();
            var x = scope.zeros(stream, DType.F32, 4);
            var y = inner.zeros(stream, DType.F32, 4);
            var z = inner.zeros(stream, DType.F32, 4).moveTo(scope);
            assertEquals(2, scope.openTensors());
            inner.close();
            assertTrue(y.isClosed());
            assertFalse(z.isClosed());
            var open = scope.openScope();
            scope.close();
            scope.close();
            assertTrue(x.isClosed() && z.isClosed() && open.isClosed());
            assertThrows(ClosedException.class, () -> scope.allocate(DType.F32, 1));
            assertThrows(ClosedException.class, scope::openScope);
            assertThrows(ClosedException.class, () -> open.allocate(DType.F32, 1));
            stream.synchronize();
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    @Test
    void nestingHasNoLimit() {
        try (var device = Device.open("cpu")) {
            var outermost = device.openScope();
            var scope = outermost;
            for (var i = 0; i < 50_000; i++) {
                scope = scope.openScope();
            }
            var x = scope.allocate(DType.F32, 1);
            outermost.close();
            assertTrue(x.isClosed() && scope.isClosed());
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void viewsKeepTheMemory(String backend) {
        try (var device = Device.open(backend,
                POISON); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.floats(stream, new float[] {1, 2, 3, 4, 5, 6, 7, 8}, 8);
            var view = x.slice(0, 4, 8);
            x.close();
            assertEquals(1, device.memory().statistics().liveAllocations());
            var other = scope.floats(stream, new float[8], 8);
            assertArrayEquals(new float[] {5, 6, 7, 8}, view.floats(stream));
            view.close();
            other.close();
            stream.synchronize();
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    /** simt runs nothing before a synchronization: memory that is freed too early would be overwritten by then. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void memoryOfQueuedWorkIsNotReused(String backend) {
        try (var device = Device.open(backend,
                POISON); var stream = device.openStream(); var scope = device.openScope()) {
            var n = 1 << 14;
            var inPlace = new InPlace(scope, stream, n);
            var y = scope.zeros(stream, DType.F32, 1, n);
            for (var round = 0; round < 20; round++) {
                try (var inner = scope.openScope()) {
                    var x = inner.allocate(DType.F32, 1, n);
                    x.fill(stream, 0x3F);
                    inPlace.add(stream, x, y);
                }
                try (var inner = scope.openScope()) {
                    inner.allocate(DType.F32, 1, n).fill(stream, 0x7F);
                }
            }
            var expected = 20 * Float.intBitsToFloat(0x3F3F3F3F);
            for (var value : y.floats(stream)) {
                assertEquals(expected, value, 1e-4);
            }
        }
    }

    /** Freeing waits for every stream that used the memory; what simt has queued on one of them has not run. */
    @Test
    void freeingWaitsForEveryStream() {
        try (var device = Device.open("simt"); var a = device.openStream(); var b = device.openStream();
                var scope = device.openScope()) {
            var x = scope.zeros(a, DType.F32, 1 << 12);
            a.synchronize();
            var y = scope.zeros(b, DType.F32, 1 << 12);
            Ops.add(b, x, x, y);
            x.fill(a, 1);
            x.close();
            a.synchronize();
            assertEquals(2, device.memory().statistics().liveAllocations(), "b has not read it yet");
            b.synchronize();
            assertEquals(1, device.memory().statistics().liveAllocations());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void pinnedMemoryWaitsForItsCopies(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.allocate(DType.U8, 1 << 20);
            var buffer = device.pin(1 << 20);
            buffer.segment().fill((byte) 3);
            x.upload(stream, buffer, 0);
            buffer.close();
            buffer.close();
            assertEquals(3, x.bytes(stream)[(1 << 20) - 1]);
            stream.synchronize();
            assertEquals(0, device.memory().statistics().hostBytes());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void streamsCloseBeforeTheirTensors(String backend) {
        try (var device = Device.open(backend); var scope = device.openScope()) {
            var stream = device.openStream();
            var x = scope.zeros(stream, DType.F32, 1000);
            stream.close();
            stream.close();
            assertThrows(ClosedException.class, stream::synchronize);
            assertThrows(ClosedException.class, () -> x.zero(stream));
            x.close();
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void devicesCloseWhatWasMadeFromThem(String backend) {
        var device = Device.open(backend);
        var stream = device.openStream();
        var scope = device.openScope();
        var x = scope.zeros(stream, DType.F32, 10);
        var event = device.openEvent();
        var buffer = device.pin(10);
        var graph = stream.capture(() -> x.fill(stream, 1));
        device.close();
        device.close();
        assertTrue(stream.isClosed() && scope.isClosed() && x.isClosed() && event.isClosed() && buffer.isClosed()
                && graph.isClosed() && device.isClosed());
        assertThrows(ClosedException.class, device::openStream);
        assertThrows(ClosedException.class, device::openScope);
        assertThrows(ClosedException.class, () -> device.memory().statistics());
    }

    @Test
    void devicesDoNotMix() {
        try (var cpu = Device.open("cpu"); var simt = Device.open("simt"); var stream = cpu.openStream();
                var scope = simt.openScope(); var event = simt.openEvent(); var simtStream = simt.openStream()) {
            var x = scope.allocate(DType.F32, 2);
            var error = assertThrows(ArgumentException.class, () -> Ops.scale(stream, x, x, 2));
            assertEquals(Status.DEVICE, error.status());
            assertTrue(error.getMessage().contains("is on simt:0 but the stream is of cpu:0"), error.getMessage());
            assertEquals(Status.DEVICE, assertThrows(ArgumentException.class, () -> stream.record(event)).status());
            assertEquals("scale", error.op());
            assertEquals(Backend.CPU, error.backend());
            var graph = simtStream.capture(() -> x.fill(simtStream, 1));
            assertEquals(Status.DEVICE, assertThrows(ArgumentException.class, () -> graph.launch(stream)).status());
        }
    }

    @Test
    void abandonedScopesAreClosed() throws Exception {
        try (var device = Device.open("cpu"); var stream = device.openStream()) {
            abandon(device, stream);
            for (var i = 0; i < 100 && device.memory().statistics().liveAllocations() > 0; i++) {
                System.gc();
                Thread.sleep(10);
            }
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    private static void abandon(Device device, Stream stream) {
        var scope = device.openScope();
        var inner = scope.openScope();
        Ops.scale(stream, inner.zeros(stream, DType.F32, 100), inner.zeros(stream, DType.F32, 100), 2);
        scope.zeros(stream, DType.F32, 100);
    }

    /** The scope alone is unreachable, but a tensor of it is in use. */
    @Test
    void tensorsKeepTheirScope() throws Exception {
        try (var device = Device.open("cpu"); var stream = device.openStream()) {
            var x = device.openScope().openScope().floats(stream, new float[] {1, 2}, 2);
            for (var i = 0; i < 5; i++) {
                System.gc();
                Thread.sleep(5);
            }
            assertArrayEquals(new float[] {1, 2}, x.floats(stream));
        }
    }

    @Test
    void leaksAreDescribed() {
        try (var device = Device.open("cpu")) {
            var leases = new Leases(device, null);
            try (var scope = new Scope(leases, null)) {
                scope.allocate(DType.F16, 7, 9);
                var text = leases.describe();
                assertTrue(text.contains("f16[7, 9]") && text.contains("leaksAreDescribed"), text);
            }
        }
    }

    @Test
    void aStreamTakesOneThreadAtATime() throws Exception {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 4);
            var entered = new CountDownLatch(1);
            var leave = new CountDownLatch(1);
            var other = Thread.ofPlatform().name("other").start(() -> {
                stream.enter("test");
                entered.countDown();
                try {
                    leave.await();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                } finally {
                    stream.exit();
                }
            });
            entered.await();
            var error = assertThrows(ConcurrentUseException.class, () -> Ops.scale(stream, x, x, 2));
            assertTrue(error.getMessage().contains("\"other\""), error.getMessage());
            assertThrows(ConcurrentUseException.class, stream::close);
            assertFalse(stream.isClosed());
            // Closing is not a call on the stream: it happens when the call in progress is over.
            x.close();
            assertEquals(1, device.memory().statistics().liveAllocations());
            leave.countDown();
            other.join();
            stream.synchronize();
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    /** Tensors are closed under calls that use them, by another thread: each call succeeds or says why not. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void closingRacesWithCalls(String backend) throws Exception {
        var seed = System.nanoTime();
        try (var device = Device.open(backend,
                POISON); var stream = device.openStream(); var scope = device.openScope()) {
            var inPlace = new InPlace(scope, stream, 64);
            var y = scope.zeros(stream, DType.F32, 1, 64);
            var current = new AtomicReference<>(scope.zeros(stream, DType.F32, 1, 64));
            stream.synchronize();
            var before = device.memory().statistics().liveAllocations();
            var failure = new AtomicReference<Throwable>();
            var stop = new CountDownLatch(1);
            var closer = Thread.ofPlatform().start(() -> {
                var random = new Random(seed);
                try (var mine = device.openStream(); var own = device.openScope()) {
                    for (var i = 0; i < 3000; i++) {
                        var next = own.allocate(DType.F32, 1, 64);
                        next.zero(mine);
                        mine.synchronize();
                        var old = current.getAndSet(next);
                        if (random.nextBoolean()) {
                            Thread.onSpinWait();
                        }
                        old.close();
                    }
                } catch (Throwable e) {
                    failure.set(e);
                } finally {
                    stop.countDown();
                }
            });
            var calls = 0;
            while (stop.getCount() > 0) {
                try {
                    inPlace.add(stream, current.get(), y);
                    calls++;
                } catch (ClosedException expected) {
                    // The other thread was first.
                }
                if (calls % 100 == 0) {
                    stream.synchronize();
                }
            }
            closer.join();
            assertEquals(null, failure.get(), "seed " + seed);
            assertArrayEquals(new float[64], y.floats(stream), "seed " + seed);
            stream.synchronize();
            assertEquals(before - 1, device.memory().statistics().liveAllocations(), "seed " + seed);
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void virtualThreadsWait(String backend) throws Exception {
        try (var device = Device.open(backend); var scope = device.openScope(); var stream = device.openStream();
                var event = device.openEvent()) {
            var x = scope.zeros(stream, DType.F32, 1 << 16);
            var thrown = new AtomicReference<Throwable>();
            Thread.ofVirtual().start(() -> {
                try {
                    for (var i = 0; i < 100; i++) {
                        x.fill(stream, i);
                    }
                    stream.record(event);
                    event.synchronize();
                    assertTrue(event.isDone());
                    stream.synchronize();
                    assertTrue(stream.isDone());
                } catch (Throwable e) {
                    thrown.set(e);
                }
            }).join();
            assertEquals(null, thrown.get());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void eventsOrderStreams(String backend) {
        try (var device = Device.open(backend, POISON); var scope = device.openScope(); var a = device.openStream();
                var b = device.openStream(); var start = device.openEvent(); var end = device.openEvent()) {
            assertTrue(start.isDone());
            var x = scope.zeros(a, DType.F32, 1 << 18);
            var y = scope.allocate(DType.F32, 1 << 18);
            a.record(start);
            for (var i = 0; i < 8; i++) {
                x.fill(a, i);
            }
            a.record(end);
            b.waitFor(end);
            Ops.copyStrided(b, x, y);
            assertEquals(Float.intBitsToFloat(0x07070707), y.floats(b)[1 << 17]);
            assertTrue(end.millisecondsSince(start) >= 0);
            end.close();
            assertThrows(ClosedException.class, () -> a.record(end));
            assertThrows(ClosedException.class, end::isDone);
        }
    }
}
