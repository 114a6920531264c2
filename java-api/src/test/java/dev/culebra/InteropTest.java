package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.ReadOnlyBufferException;
import java.nio.channels.Pipe;
import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicInteger;
import jdk.incubator.vector.FloatVector;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Memory shared with Java's own libraries and with owners of raw pointers. */
@SuppressWarnings("try") // closed early, or held open only
class InteropTest {
    @Test
    void aHostViewIsTheTensorsMemory() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.floats(stream, new float[] {1, 2, 3, 4, 5, 6}, 2, 3);
            var y = scope.allocate(DType.F32, 1, 3);
            try (var view = x.slice(0, 1, 2).hostView(stream)) {
                assertEquals(x.pointer() + 12, view.segment().address());
                assertEquals(12, view.segment().byteSize());
                var floats = view.buffer().asFloatBuffer();
                assertTrue(floats.isDirect());
                assertEquals(5, floats.get(1));
                floats.put(1, 50);
                Ops.scale(stream, x.slice(0, 1, 2), y, 2);
                assertArrayEquals(new float[] {8, 100, 12}, y.floats(stream));
            }
        }
    }

    @Test
    void aHostViewWaitsAndKeepsTheMemory() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 1 << 20);
            x.fill(stream, 1);
            var view = x.hostView(stream);
            assertEquals(0x01010101, view.segment().getAtIndex(ValueLayout.JAVA_INT, (1 << 20) - 1));
            x.close();
            stream.synchronize();
            assertEquals(1, device.memory().statistics().liveAllocations());
            view.segment().setAtIndex(ValueLayout.JAVA_INT, 0, 7);
            var segment = view.segment();
            view.close();
            view.close();
            assertTrue(view.isClosed());
            assertThrows(IllegalStateException.class, () -> segment.get(ValueLayout.JAVA_INT, 0));
            stream.synchronize();
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    @Test
    void closingTheDeviceClosesItsViews() {
        var device = Device.open("cpu");
        HostView view;
        try (var stream = device.openStream(); var scope = device.openScope()) {
            view = scope.zeros(stream, DType.F32, 4).hostView(stream);
        }
        device.close();
        assertTrue(view.isClosed());
        assertThrows(IllegalStateException.class, () -> view.segment().get(ValueLayout.JAVA_INT, 0));
    }

    @Test
    void whatHasNoHostViewIsRefused() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope();
                var simt = Device.open("simt"); var queue = simt.openStream(); var arena = Arena.ofConfined()) {
            var x = scope.zeros(stream, DType.F32, 4, 4);
            assertThrows(ArgumentException.class, () -> x.transpose(0, 1).hostView(stream));
            var far = simt.openScope().zeros(queue, DType.F32, 4);
            var error = assertThrows(UnsupportedException.class, () -> far.hostView(queue));
            assertTrue(error.getMessage().contains("download"), error.getMessage());
            assertThrows(UnsupportedException.class, () -> stream.capture(() -> x.hostView(stream)));
            var readOnly = scope.wrap(arena.allocate(16, 16).asReadOnly(), DType.F32, 4);
            try (var view = readOnly.hostView(stream)) {
                assertThrows(ReadOnlyBufferException.class, () -> view.buffer().putInt(0, 1));
            }
            readOnly.close();
            x.close();
            assertThrows(ClosedException.class, () -> x.hostView(stream));
        }
    }

    @Test
    void aViewOfAWrappedSegmentEndsWithItsArena() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var arena = Arena.ofShared();
            var x = scope.wrap(arena.allocate(64, 16), DType.I32, 16);
            x.slice(0, 4, 8).fill(stream, 7);
            var segment = x.slice(0, 4, 8).hostView(stream).segment();
            assertEquals(16, segment.byteSize());
            assertEquals(0x07070707, segment.get(ValueLayout.JAVA_INT, 0));
            arena.close();
            assertThrows(IllegalStateException.class, () -> segment.get(ValueLayout.JAVA_INT, 0));
            assertThrows(ClosedException.class, () -> x.ints(stream));
            assertThrows(ClosedException.class, () -> scope.wrap(segment, DType.I32, 4));
        }
    }

    /** A thread that reads a channel into it writes to its memory until something comes. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void memoryOfACallInProgressStays(boolean pinned) throws Exception {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            AutoCloseable owner;
            ByteBuffer bytes;
            if (pinned) {
                var buffer = device.pin(64);
                owner = buffer;
                bytes = buffer.segment().asByteBuffer();
            } else {
                var view = scope.zeros(stream, DType.U8, 64).hostView(stream);
                owner = view;
                bytes = view.buffer();
            }
            var pipe = Pipe.open();
            var reader = new FutureTask<>(() -> pipe.source().read(bytes));
            var thread = Thread.ofPlatform().start(reader);
            while (Arrays.stream(thread.getStackTrace()).noneMatch(StackTraceElement::isNativeMethod)) {
                Thread.sleep(1);
            }
            assertThrows(ConcurrentUseException.class, owner::close);
            var used = device.memory().statistics();
            assertEquals(1, used.liveAllocations() + used.hostBytes() / 64);
            var closing = Thread.ofPlatform().start(device::close);
            closing.join(100);
            assertTrue(closing.isAlive(), "the device waits for the call");
            pipe.sink().write(ByteBuffer.allocate(64));
            assertEquals(64, reader.get());
            closing.join();
            assertThrows(IllegalStateException.class, () -> bytes.get(0));
            owner.close();
        }
    }

    @Test
    void nioBuffersAreWrapped() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var buffer = ByteBuffer.allocateDirect(32).alignedSlice(16).order(ByteOrder.nativeOrder()).limit(16).slice();
            var x = scope.wrap(MemorySegment.ofBuffer(buffer), DType.F32, 4);
            Ops.scale(stream, scope.floats(stream, new float[] {1, 2, 3, 4}, 4), x, 3);
            stream.synchronize();
            assertEquals(12, buffer.order(ByteOrder.nativeOrder()).getFloat(12));
            var heap = MemorySegment.ofBuffer(ByteBuffer.allocate(16));
            assertThrows(ArgumentException.class, () -> scope.wrap(heap, DType.F32, 4));
        }
    }

    @Test
    void rawPointersHaveAnOwner() {
        try (var arena = Arena.ofShared(); var device = Device.open("cpu"); var stream = device.openStream();
                var scope = device.openScope()) {
            var released = new AtomicInteger();
            var memory = arena.allocate(64, 64);
            var x = scope.wrapPointer(memory.address(), released::incrementAndGet, DType.F32, 4, 4);
            assertEquals(memory.address(), x.pointer());
            x.fill(stream, 3);
            stream.synchronize();
            assertEquals(0x03030303, memory.getAtIndex(ValueLayout.JAVA_INT, 15));
            var view = x.select(0, 1);
            x.close();
            stream.synchronize();
            assertEquals(0, released.get());
            view.close();
            stream.synchronize();
            assertEquals(1, released.get());
            assertThrows(ClosedException.class, x::pointer);
        }
    }

    @Test
    void badPointersAreRefusedAndNotReleased() {
        try (var device = Device.open("cpu"); var simt = Device.open("simt"); var stream = device.openStream()) {
            var released = new AtomicInteger();
            Runnable release = released::incrementAndGet;
            var scope = device.openScope();
            assertEquals(Status.NULL_POINTER, assertThrows(ArgumentException.class,
                    () -> scope.wrapPointer(0, release, DType.F32, 4)).status());
            assertEquals(Status.ALIGNMENT, assertThrows(ArgumentException.class,
                    () -> scope.wrapPointer(4098, release, DType.F32, 4)).status());
            assertThrows(UnsupportedException.class, () -> simt.openScope().wrapPointer(4096, release, DType.F32, 4));
            assertThrows(ArgumentException.class, () -> scope.wrapPointer(4096, release, DType.F32, -4));
            scope.close();
            assertThrows(ClosedException.class, () -> scope.wrapPointer(4096, release, DType.F32, 4));
            assertEquals(0, released.get());
            assertFalse(device.isClosed());
            stream.synchronize();
        }
    }

    /** {@code y += 0.5 x} by Java's own vectors, in the memory of two tensors, between two operators. */
    @Test
    void theVectorApiComputesInTensors() {
        var species = FloatVector.SPECIES_PREFERRED;
        var order = ByteOrder.nativeOrder();
        var n = 1000;
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var ones = scope.floats(stream, filled(n, 1), n);
            var x = scope.allocate(DType.F32, n);
            var y = scope.allocate(DType.F32, n);
            var z = scope.allocate(DType.F32, n);
            Ops.scale(stream, ones, x, 8);
            Ops.scale(stream, ones, y, 3);
            try (var xView = x.hostView(stream); var yView = y.hostView(stream)) {
                var bytes = xView.segment().byteSize();
                for (var offset = 0L; offset < bytes; offset += species.vectorByteSize()) {
                    var mask = species.indexInRange(offset / 4, n);
                    var sum = FloatVector.fromMemorySegment(species, xView.segment(), offset, order, mask)
                            .fma(FloatVector.broadcast(species, 0.5f),
                                    FloatVector.fromMemorySegment(species, yView.segment(), offset, order, mask));
                    sum.intoMemorySegment(yView.segment(), offset, order, mask);
                }
            }
            Ops.scale(stream, y, z, 2);
            assertArrayEquals(filled(n, 14), z.floats(stream));
        }
    }

    private static float[] filled(int n, float value) {
        var values = new float[n];
        Arrays.fill(values, value);
        return values;
    }

    /** What an owner does when it gets its memory back is its own business. */
    @Test
    void aReleaseMayUseWhatTheMemoryCameFrom() {
        assertTimeoutPreemptively(Duration.ofSeconds(60), () -> {
            try (var arena = Arena.ofShared()) {
                var memory = arena.allocate(64, 64);
                var device = Device.open("cpu");
                var stream = device.openStream();
                var x = new Tensor[1];
                x[0] = device.openScope().wrapPointer(memory.address(), () -> {
                    stream.synchronize();
                    assertThrows(ClosedException.class, () -> x[0].zero(stream));
                    device.close();
                }, DType.F32, 16);
                x[0].zero(stream);
                x[0].close();
                while (!device.isClosed()) {
                    device.pending().settle();
                }
            }
        });
    }

    /** Another thread waits for a lock that the owner needs, and needs the device itself. */
    @Test
    void closingTheDeviceHoldsNoLockWhileItGivesBack() {
        assertTimeoutPreemptively(Duration.ofSeconds(60), () -> {
            try (var arena = Arena.ofShared()) {
                var device = Device.open("cpu");
                var released = new AtomicInteger();
                var x = device.openScope().wrapPointer(arena.allocate(64, 64).address(), () -> {
                    var other = Thread.ofPlatform().start(() ->
                            assertThrows(ClosedException.class, () -> device.memory().statistics()));
                    assertTrue(joined(other));
                    released.incrementAndGet();
                }, DType.F32, 16);
                try (var a = Device.open("simt"); var stream = a.openStream(); var scope = a.openScope()) {
                    scope.allocate(DType.F32, 16).copyFrom(stream, x);
                    device.close();
                    assertEquals(0, released.get(), "the copy has not run");
                }
                assertEquals(1, released.get());
            }
        });
    }

    private static boolean joined(Thread thread) {
        try {
            thread.join();
            return true;
        } catch (InterruptedException e) {
            return false;
        }
    }

    /** An owner whose release fails must not take the thread down that happens to close the tensor. */
    @Test
    void aFailingReleaseIsLogged() {
        try (var arena = Arena.ofShared(); var device = Device.open("cpu"); var scope = device.openScope()) {
            scope.wrapPointer(arena.allocate(16, 16).address(), () -> {
                throw new IllegalStateException("as planned");
            }, DType.F32, 4).close();
        }
    }
}
