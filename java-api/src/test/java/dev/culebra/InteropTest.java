package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.ReadOnlyBufferException;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicInteger;
import jdk.incubator.vector.FloatVector;
import org.junit.jupiter.api.Test;

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
