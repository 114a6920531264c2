package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.generated.cul_device_id;
import dev.culebra.bindings.generated.cul_dtype;
import dev.culebra.bindings.generated.cul_managed_deleter;
import dev.culebra.bindings.generated.cul_managed_tensor;
import dev.culebra.bindings.generated.cul_managed_tensor_versioned;
import dev.culebra.bindings.generated.cul_tensor;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Tensors across libraries: the memory is the same, the deleter is called once, and the loan outlives whatever lent it. */
@SuppressWarnings("try") // closed early, or held open only
class DlpackTest {
    /** A tensor that another library would lend: f32 of {@code values}, with a deleter that counts. */
    private static final class Producer implements AutoCloseable {
        final Arena arena = Arena.ofShared();
        final AtomicInteger deleted = new AtomicInteger();
        final MemorySegment data;
        final MemorySegment struct;
        final MemorySegment view;

        Producer(float... values) {
            Natives.load();
            data = arena.allocate(4L * values.length, 64);
            MemorySegment.copy(values, 0, data, ValueLayout.JAVA_FLOAT, 0, values.length);
            struct = arena.allocate(cul_managed_tensor_versioned.layout());
            view = cul_managed_tensor_versioned.tensor(struct);
            cul_managed_tensor_versioned.major(struct, 1);
            cul_managed_tensor_versioned.minor(struct, 9);
            cul_managed_tensor_versioned.deleter(struct, deleter());
            describe(view, values.length);
        }

        MemorySegment deleter() {
            return cul_managed_deleter.allocate(managed -> deleted.incrementAndGet(), arena);
        }

        void describe(MemorySegment tensor, long... shape) {
            cul_tensor.data(tensor, data);
            cul_device_id.type(cul_tensor.device(tensor), culebra_h.CUL_DEVICE_CPU());
            cul_tensor.ndim(tensor, shape.length);
            cul_dtype.code(cul_tensor.dtype(tensor), (byte) culebra_h.CUL_FLOAT());
            cul_dtype.bits(cul_tensor.dtype(tensor), (byte) 32);
            cul_dtype.lanes(cul_tensor.dtype(tensor), (short) 1);
            cul_tensor.shape(tensor, arena.allocateFrom(ValueLayout.JAVA_LONG, shape));
        }

        @Override
        public void close() {
            arena.close();
        }
    }

    @AfterEach
    void nothingIsLent() {
        assertEquals(0, Dlpack.lent());
    }

    private static MemorySegment tensor(long managed) {
        var struct = Native.memory(MemorySegment.ofAddress(managed), cul_managed_tensor_versioned.sizeof(), Arena.global());
        return cul_managed_tensor_versioned.tensor(struct);
    }

    @Test
    void aLoanIsTheTensorsMemory() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.floats(stream, new float[] {0, 1, 2, 3, 4, 5}, 2, 3);
            var column = x.slice(1, 1, 2);
            var managed = Dlpack.lend(stream, column);
            assertEquals(1, Dlpack.lent());
            var view = tensor(managed);
            assertEquals(x.pointer(), cul_tensor.data(view).address());
            assertEquals(4, cul_tensor.byte_offset(view));
            assertEquals(culebra_h.CUL_DEVICE_CPU(), cul_device_id.type(cul_tensor.device(view)));
            assertEquals(2, cul_tensor.ndim(view));
            assertArrayEquals(new long[] {2, 1}, longs(cul_tensor.shape(view), 2));
            assertArrayEquals(new long[] {3, 1}, longs(cul_tensor.strides(view), 2));

            var borrowed = Dlpack.borrow(scope, managed);
            assertEquals(column.pointer(), borrowed.pointer());
            assertArrayEquals(new float[] {1, 4}, borrowed.floats(stream));
            borrowed.close();
            assertReturned(stream, scope);
        }
    }

    /** Given back with the last view, behind the work that used it: an allocation looks after what has ended. */
    private static void assertReturned(Stream stream, Scope scope) {
        for (var attempt = 0; attempt < 1000 && Dlpack.lent() > 0; attempt++) {
            stream.synchronize();
            scope.allocate(DType.F32, 1).close();
            LockSupport.parkNanos(1_000_000);
        }
        assertEquals(0, Dlpack.lent());
    }

    private static long[] longs(MemorySegment at, int count) {
        return Native.memory(at, 8L * count, Arena.global()).toArray(ValueLayout.JAVA_LONG);
    }

    /** The queued work that a taker must not overtake. */
    @Test
    void lendingWaitsForTheStream() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 1 << 20);
            var y = scope.allocate(DType.F32, 1 << 20);
            for (var i = 0; i < 20; i++) {
                Ops.scale(stream, x, y, 2);
            }
            y.fill(stream, 0x40);
            var managed = Dlpack.lendUnversioned(stream, y);
            assertTrue(stream.isDone());
            Dlpack.deleteUnversioned(managed);
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aLoanOutlivesTensorScopeAndDevice(String backend) {
        long managed;
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.floats(stream, new float[] {1, 2, 3, 4}, 4);
            managed = Dlpack.lend(stream, x);
            x.close();
            assertEquals(1, device.memory().statistics().liveAllocations());
        }
        var data = Native.memory(cul_tensor.data(tensor(managed)), 16, Arena.global());
        assertArrayEquals(new float[] {1, 2, 3, 4}, data.toArray(ValueLayout.JAVA_FLOAT));
        Dlpack.delete(managed);
    }

    @Test
    void theMemoryIsFreedWithTheLoan() throws InterruptedException {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 4);
            var managed = Dlpack.lend(stream, x);
            x.close();
            Thread.ofPlatform().start(() -> Dlpack.delete(managed)).join();
            stream.synchronize();
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    @Test
    void aDeleterCalledTwiceHarmsNobody() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 4);
            var managed = Dlpack.lend(stream, x);
            var struct = Native.memory(MemorySegment.ofAddress(managed), cul_managed_tensor_versioned.sizeof(), Arena.global());
            var deleter = cul_managed_tensor_versioned.deleter(struct);
            cul_managed_deleter.invoke(deleter, struct);
            cul_managed_deleter.invoke(deleter, struct);
            assertArrayEquals(new float[4], x.floats(stream));
        }
    }

    @Test
    void whatIsBorrowedIsGivenBackOnceAndBehindTheWork() {
        try (var producer = new Producer(1, 2, 3, 4); var device = Device.open("cpu"); var stream = device.openStream();
                var other = device.openStream(); var scope = device.openScope()) {
            var x = Dlpack.borrow(scope, producer.struct.address());
            assertEquals(producer.data.address(), x.pointer());
            var y = scope.allocate(DType.F32, 4);
            Ops.scale(stream, x, y, 10);
            other.synchronize();
            stream.synchronize();
            x.fill(other, 0x40);
            assertArrayEquals(new float[] {10, 20, 30, 40}, y.floats(stream));
            other.synchronize();
            assertEquals(0x40404040, producer.data.getAtIndex(ValueLayout.JAVA_INT, 3), "written through");
            var view = x.slice(0, 0, 2);
            x.close();
            assertEquals(0, producer.deleted.get(), "a view is open");
            Ops.scale(stream, view, y.slice(0, 0, 2), 3);
            view.close();
            stream.synchronize();
            other.synchronize();
            assertEquals(1, producer.deleted.get());
            scope.close();
            assertEquals(1, producer.deleted.get());
        }
    }

    /** Work that still waits in a queue uses the memory. */
    @Test
    void theDeleterWaitsForQueuedWork() throws InterruptedException {
        try (var producer = new Producer(1, 2, 3, 4); var device = Device.open("cpu"); var stream = device.openStream();
                var blocked = device.openStream(); var scope = device.openScope(); var event = device.openEvent()) {
            var x = Dlpack.borrow(scope, producer.struct.address());
            var large = scope.zeros(stream, DType.F32, 1 << 22);
            var target = scope.allocate(DType.F32, 1 << 22);
            for (var i = 0; i < 30; i++) {
                Ops.scale(stream, large, target, 2);
            }
            stream.record(event);
            blocked.waitFor(event);
            x.fill(blocked, 0);
            x.close();
            while (!event.isDone()) {
                var deleted = producer.deleted.get();
                assertEquals(0, event.isDone() ? 0 : deleted);
                Thread.sleep(1);
            }
            blocked.synchronize();
            assertEquals(1, producer.deleted.get());
            assertEquals(0, producer.data.getAtIndex(ValueLayout.JAVA_INT, 3));
        }
    }

    @Test
    void closingTheDeviceGivesBack() {
        try (var producer = new Producer(1, 2)) {
            var device = Device.open("cpu");
            Dlpack.borrow(device.openScope(), producer.struct.address());
            device.close();
            assertEquals(1, producer.deleted.get());
        }
    }

    @Test
    void theOlderStructIsUnderstood() {
        try (var producer = new Producer(1, 2, 3, 4); var device = Device.open("cpu"); var stream = device.openStream();
                var scope = device.openScope()) {
            var struct = producer.arena.allocate(cul_managed_tensor.layout());
            cul_managed_tensor.deleter(struct, producer.deleter());
            producer.describe(cul_managed_tensor.tensor(struct), 2, 2);
            cul_tensor.byte_offset(cul_managed_tensor.tensor(struct), 0);
            cul_tensor.strides(cul_managed_tensor.tensor(struct), producer.arena.allocateFrom(ValueLayout.JAVA_LONG, 1, 2));
            try (var x = Dlpack.borrowUnversioned(scope, struct.address())) {
                assertArrayEquals(new float[] {1, 3, 2, 4}, x.floats(stream));
                var managed = Dlpack.lendUnversioned(stream, x);
                x.close();
                stream.synchronize();
                assertEquals(0, producer.deleted.get(), "lent on");
                Dlpack.deleteUnversioned(managed);
            }
            stream.synchronize();
            assertEquals(1, producer.deleted.get());
        }
    }

    @Test
    void noDeleterMeansNothingToGiveBack() {
        try (var producer = new Producer(1, 2); var device = Device.open("cpu"); var scope = device.openScope()) {
            cul_managed_tensor_versioned.deleter(producer.struct, MemorySegment.NULL);
            Dlpack.borrow(scope, producer.struct.address()).close();
            Dlpack.delete(producer.struct.address());
        }
    }

    @Test
    void readOnlyMemoryIsNotWritten() {
        try (var producer = new Producer(1, 2); var device = Device.open("cpu"); var stream = device.openStream();
                var scope = device.openScope()) {
            cul_managed_tensor_versioned.flags(producer.struct, culebra_h.CUL_DLPACK_READ_ONLY());
            var x = Dlpack.borrow(scope, producer.struct.address());
            assertThrows(UnsupportedException.class, () -> x.zero(stream));
            assertThrows(UnsupportedException.class, () -> Dlpack.lendUnversioned(stream, x));
            var managed = Dlpack.lend(stream, x);
            var again = Dlpack.borrow(scope, managed);
            assertThrows(UnsupportedException.class, () -> again.zero(stream), "the flag travels on");
            again.close();
        }
    }

    @Test
    void whatIsRefusedStaysTheCallers() {
        refused(Status.UNSUPPORTED, "version 2.9", p -> cul_managed_tensor_versioned.major(p.struct, 2));
        refused(Status.DEVICE, "(2, 0)", p -> cul_device_id.type(cul_tensor.device(p.view), 2));
        refused(Status.DTYPE, "2, 64 bits and 1", p -> cul_dtype.bits(cul_tensor.dtype(p.view), (byte) 64));
        refused(Status.DTYPE, "4 lanes", p -> cul_dtype.lanes(cul_tensor.dtype(p.view), (short) 4));
        refused(Status.STRIDE, "-1", p -> cul_tensor.strides(p.view, p.arena.allocateFrom(ValueLayout.JAVA_LONG, -1)));
        refused(Status.SHAPE, "9", p -> cul_tensor.ndim(p.view, 9));
        refused(Status.SHAPE, "-1", p -> cul_tensor.ndim(p.view, -1));
        refused(Status.SHAPE, "negative", p -> cul_tensor.shape(p.view, p.arena.allocateFrom(ValueLayout.JAVA_LONG, -3)));
        refused(Status.NULL_POINTER, "shape", p -> cul_tensor.shape(p.view, MemorySegment.NULL));
        refused(Status.NULL_POINTER, "address is 0", p -> cul_tensor.data(p.view, MemorySegment.NULL));
        refused(Status.ALIGNMENT, "aligned", p -> cul_tensor.byte_offset(p.view, 2));
    }

    private static void refused(Status status, String text, Consumer<Producer> fault) {
        try (var producer = new Producer(1, 2); var device = Device.open("cpu"); var stream = device.openStream();
                var scope = device.openScope()) {
            fault.accept(producer);
            var error = assertThrows(CulebraException.class, () -> Dlpack.borrow(scope, producer.struct.address()));
            assertEquals(status, error.status(), error.getMessage());
            assertTrue(error.getMessage().contains(text), error.getMessage());
            assertEquals(0, producer.deleted.get());
            assertEquals(0, scope.openTensors());
            assertArrayEquals(new float[1], scope.zeros(stream, DType.F32, 1).floats(stream), "the device is usable");
        }
    }

    @Test
    void furtherRefusals() {
        try (var producer = new Producer(1, 2); var device = Device.open("cpu"); var other = Device.open("cpu");
                var stream = device.openStream(); var simt = Device.open("simt")) {
            var scope = device.openScope();
            assertEquals(Status.NULL_POINTER,
                    assertThrows(ArgumentException.class, () -> Dlpack.borrow(scope, 0)).status());
            assertThrows(ArgumentException.class, () -> Dlpack.delete(0));
            assertThrows(ArgumentException.class, () -> Dlpack.deleteUnversioned(0));
            assertThrows(UnsupportedException.class, () -> Dlpack.borrow(simt.openScope(), producer.struct.address()));
            var foreign = other.openScope().allocate(DType.F32, 1);
            assertThrows(ArgumentException.class, () -> Dlpack.lend(stream, foreign));
            var x = scope.allocate(DType.F32, 1);
            assertThrows(UnsupportedException.class, () -> stream.capture(() -> Dlpack.lend(stream, x)));
            x.close();
            assertThrows(ClosedException.class, () -> Dlpack.lend(stream, x));
            scope.close();
            assertThrows(ClosedException.class, () -> Dlpack.borrow(scope, producer.struct.address()));
            assertEquals(0, producer.deleted.get());
        }
    }

    @Test
    void emptyAndScalarTensors() {
        try (var producer = new Producer(7); var device = Device.open("cpu"); var stream = device.openStream();
                var scope = device.openScope()) {
            cul_tensor.ndim(producer.view, 0);
            cul_tensor.shape(producer.view, MemorySegment.NULL);
            var scalar = Dlpack.borrow(scope, producer.struct.address());
            assertArrayEquals(new float[] {7}, scalar.floats(stream));
            try (var empty = scope.allocate(DType.BF16, 0, 3)) {
                var managed = Dlpack.lend(stream, empty);
                try (var back = Dlpack.borrow(scope, managed)) {
                    assertArrayEquals(new long[] {0, 3}, back.shape());
                    assertEquals(DType.BF16, back.dtype());
                }
            }
        }
    }
}
