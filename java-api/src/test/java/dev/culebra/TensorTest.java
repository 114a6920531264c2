package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

@SuppressWarnings("try") // closed twice, or held open only
class TensorTest {
    private Device device;
    private dev.culebra.Stream stream;
    private Scope scope;

    private void open(String backend) {
        device = Device.open(backend, DeviceOptions.DEFAULT.withPoison(true));
        stream = device.openStream();
        scope = device.openScope();
    }

    @AfterEach
    void close() {
        if (device != null) {
            device.close();
        }
    }

    private Tensor counting(long... shape) {
        var values = new float[(int) Arrays.stream(shape).reduce(1, (a, b) -> a * b)];
        for (var i = 0; i < values.length; i++) {
            values[i] = i;
        }
        return scope.floats(stream, values, shape);
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void tellsItsShape(String backend) {
        open(backend);
        var x = scope.allocate(DType.BF16, 2, 3, 4);
        assertEquals(3, x.rank());
        assertArrayEquals(new long[] {12, 4, 1}, x.strides());
        assertEquals(4, x.size(-1));
        assertEquals(24, x.elements());
        assertEquals(48, x.bytes());
        assertTrue(x.isContiguous());
        assertTrue(x.toString().endsWith("bf16[2, 3, 4]"), x.toString());
        assertEquals(1, scope.allocate(DType.F32).elements());
        assertEquals(0, scope.allocate(DType.F32, 0, 5).bytes());
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void viewsShareTheMemory(String backend) {
        open(backend);
        var x = counting(2, 3, 4);
        assertArrayEquals(new float[] {16, 17, 18, 19}, x.select(0, 1).select(0, 1).floats(stream));
        assertArrayEquals(new float[] {1, 2, 5, 6, 9, 10}, x.select(0, 0).slice(1, 1, 3).floats(stream));
        var transposed = x.transpose(0, -1);
        assertArrayEquals(new long[] {4, 3, 2}, transposed.shape());
        assertFalse(transposed.isContiguous());
        assertArrayEquals(new float[] {0, 12, 4, 16, 8, 20}, transposed.select(0, 0).floats(stream));
        assertArrayEquals(new float[] {7, 7, 7},
                x.select(0, 0).select(0, 1).slice(0, 3, 4).expand(0, 3).floats(stream));
        assertEquals(Float.floatToRawIntBits(23f), x.bitcast(DType.I32).ints(stream)[23]);
        transposed.select(0, 3).setFloats(stream, 100, 101, 102, 103, 104, 105);
        assertEquals(101, x.floats(stream)[15]);
    }

    @Test
    void reshapesAsNumpyDoes() {
        open("cpu");
        var seed = System.nanoTime();
        var random = new Random(seed);
        for (var round = 0; round < 300; round++) {
            var shape = IntStream.range(0, 1 + random.nextInt(4)).mapToLong(i -> 1 + random.nextInt(4)).toArray();
            try (var inner = scope.openScope()) {
                var whole = counting(shape).moveTo(inner);
                var view = whole;
                if (random.nextBoolean()) {
                    view = view.transpose(random.nextInt(shape.length), random.nextInt(shape.length));
                }
                var d = random.nextInt(shape.length);
                if (view.size(d) > 1 && random.nextBoolean()) {
                    view = view.slice(d, 0, view.size(d) - 1);
                }
                var target = factors(view.elements(), random);
                var text = "seed " + seed + " round " + round + ": " + view + Arrays.toString(view.strides()) + " to "
                        + Arrays.toString(target);
                try {
                    assertArrayEquals(view.floats(stream), view.reshape(target).floats(stream), text);
                } catch (ArgumentException e) {
                    assertFalse(view.isContiguous(), text);
                    assertEquals(Status.SHAPE, e.status());
                }
            }
        }
    }

    private static long[] factors(long elements, Random random) {
        var shape = new long[5];
        for (var d = 0; d < 4; d++) {
            var factor = 1 + random.nextInt(4);
            shape[d] = elements % factor == 0 ? factor : 1;
            elements /= shape[d];
        }
        shape[4] = elements;
        return shape;
    }

    @Test
    void reshapesViewsWhereStridesAllowIt() {
        open("cpu");
        var x = counting(4, 6).slice(0, 1, 3);
        assertArrayEquals(new long[] {2, 2, 3}, x.reshape(2, 2, -1).shape());
        var columns = counting(4, 6).slice(1, 0, 4);
        assertArrayEquals(new long[] {6, 2, 1}, columns.reshape(4, 2, 2).strides());
        var error = assertThrows(ArgumentException.class, () -> columns.reshape(16));
        assertTrue(error.getMessage().contains("[6, 1]"), error.getMessage());
        assertThrows(ArgumentException.class, () -> x.reshape(5, -1));
        assertThrows(ArgumentException.class, () -> x.reshape(-1, -1));
        assertThrows(ArgumentException.class, () -> scope.allocate(DType.F32, 0).reshape(0, -1));
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void roundsAsTheTypeSays(String backend) {
        open(backend);
        var values = new float[] {0, -0f, 1, 1.00390625f, 65504, 70000, 448, 449, 1e-3f, -0.0009765625f, Float.NaN};
        var f16 = scope.floats(stream, DType.F16, values, values.length).floats(stream);
        assertEquals(Float.POSITIVE_INFINITY, f16[5]);
        assertEquals(65504, f16[4]);
        var bf16 = scope.floats(stream, DType.BF16, values, values.length).floats(stream);
        assertEquals(1f, bf16[3], "half way: to even");
        assertTrue(Float.isNaN(bf16[10]));
        var f8 = scope.floats(stream, DType.F8E4M3, values, values.length).floats(stream);
        assertEquals(448, f8[5]);
        assertEquals(448, f8[7]);
        assertEquals(0.001953125f / 2 == f8[8] ? 0 : 0.001953125f, f8[8], "nearest multiple of 1/512");
        assertTrue(Float.isNaN(f8[10]));
    }

    /** The library's own cast knows the same rounding: every f8 value, and what lies between neighbours. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void roundsAsTheLibraryDoes(String backend) {
        open(backend);
        var values = new float[3000];
        var random = new Random(17);
        for (var i = 0; i < values.length; i++) {
            values[i] = Math.scalb(random.nextFloat() * 2 - 1, random.nextInt(22) - 12);
        }
        var x = scope.floats(stream, values, values.length);
        for (var dtype : new DType[] {DType.F16, DType.BF16, DType.F8E4M3}) {
            var cast = scope.allocate(dtype, values.length);
            Ops.cast(stream, x, cast);
            assertArrayEquals(
                    cast.bytes(stream), scope.floats(stream, dtype, values, values.length).bytes(stream),
                            dtype.toString());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void copies(String backend) {
        open(backend);
        var x = counting(3, 4);
        var y = scope.zeros(stream, DType.F32, 3, 4);
        y.copyFrom(stream, x);
        assertArrayEquals(x.floats(stream), y.floats(stream));
        var z = scope.zeros(stream, DType.F32, 4, 3);
        z.copyFrom(stream, x.transpose(0, 1));
        assertArrayEquals(x.transpose(0, 1).floats(stream), z.floats(stream));
        assertThrows(ArgumentException.class, () -> z.copyFrom(stream, x));
        var overlap = assertThrows(CulebraException.class, () -> x.slice(0, 0, 2).copyFrom(stream, x.slice(0, 1, 3)));
        assertTrue(overlap.getMessage().contains("overlap"), overlap.getMessage());
        try (var cpu = Device.open("cpu"); var cpuScope = cpu.openScope()) {
            var host = cpuScope.allocate(DType.F32, 3, 4);
            host.copyFrom(stream, x);
            stream.synchronize();
            try (var cpuStream = cpu.openStream()) {
                assertArrayEquals(x.floats(stream), host.floats(cpuStream));
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void movesHostData(String backend) {
        open(backend);
        var x = scope.ints(stream, new int[] {1, -2, 3}, 3);
        assertArrayEquals(new int[] {1, -2, 3}, x.ints(stream));
        assertArrayEquals(new long[] {1L << 40, -1}, scope.longs(stream, new long[] {1L << 40, -1}, 2).longs(stream));
        try (var arena = Arena.ofConfined()) {
            var memory = arena.allocateFrom(ValueLayout.JAVA_INT, 7, 8, 9);
            x.upload(stream, memory);
            var back = arena.allocate(12);
            x.download(stream, back);
            assertEquals(0, memory.mismatch(back) + 1);
            assertThrows(ArgumentException.class, () -> x.upload(stream, memory.asSlice(0, 8)));
            assertThrows(UnsupportedException.class, () -> x.download(stream, memory.asReadOnly()));
        }
        try (var buffer = device.pin(64)) {
            buffer.segment().set(ValueLayout.JAVA_INT, 16, 42);
            x.upload(stream, buffer, 16);
            x.download(stream, buffer, 40);
            stream.synchronize();
            assertEquals(42, buffer.segment().get(ValueLayout.JAVA_INT, 40));
            assertThrows(ArgumentException.class, () -> x.upload(stream, buffer, 53));
            buffer.close();
            assertThrows(ClosedException.class, () -> x.upload(stream, buffer, 0));
            assertThrows(ClosedException.class, buffer::segment);
        }
        assertThrows(ArgumentException.class, () -> x.setFloats(stream, 1, 2, 3));
        assertThrows(ArgumentException.class, () -> x.floats(stream));
        assertThrows(ArgumentException.class, () -> x.setInts(stream, 1, 2));
    }

    @Test
    void refusesSegmentsOfOtherThreads() throws Exception {
        open("cpu");
        var x = scope.allocate(DType.F32, 4);
        try (var arena = Arena.ofConfined()) {
            var mine = arena.allocate(16);
            var thrown = new Throwable[1];
            var thread = Thread.ofVirtual().start(() -> {
                try {
                    x.upload(stream, mine);
                } catch (Throwable e) {
                    thrown[0] = e;
                }
            });
            thread.join();
            assertTrue(thrown[0] instanceof UnsupportedException, String.valueOf(thrown[0]));
            assertTrue(thrown[0].getMessage().contains("confined to another thread"), thrown[0].getMessage());
        }
    }

    @Test
    void wrapsHostMemoryOnCpuAlone() {
        open("cpu");
        try (var arena = Arena.ofShared()) {
            var memory = arena.allocate(64, 16);
            var x = scope.wrap(memory, DType.F32, 4, 4);
            x.fill(stream, 1);
            stream.synchronize();
            assertEquals(0x01010101, memory.get(ValueLayout.JAVA_INT, 60));
            assertThrows(ArgumentException.class, () -> scope.wrap(memory, DType.F32, 4));
            assertThrows(ArgumentException.class, () -> scope.wrap(MemorySegment.ofArray(new byte[16]), DType.F32, 4));
            assertEquals(Status.ALIGNMENT,
                    assertThrows(ArgumentException.class, () ->
                            scope.wrap(memory.asSlice(4, 16), DType.F32, 4)).status());
            var readOnly = scope.wrap(memory.asReadOnly(), DType.F32, 4, 4);
            assertEquals(16, readOnly.floats(stream).length);
            assertThrows(UnsupportedException.class, () -> readOnly.zero(stream));
            assertThrows(UnsupportedException.class, () -> readOnly.copyFrom(stream, x));
            assertThrows(UnsupportedException.class, () -> Ops.copyStrided(stream, x, readOnly));
            arena.close();
            assertThrows(ClosedException.class, () -> x.fill(stream, 1));
        } catch (IllegalStateException closedTwice) {
            assertTrue(closedTwice.getMessage().contains("closed"), closedTwice.getMessage());
        }
        try (var simt = Device.open("simt"); var other = simt.openScope(); var arena = Arena.ofConfined()) {
            assertThrows(UnsupportedException.class, () -> other.wrap(arena.allocate(16, 16), DType.F32, 4));
        }
    }

    /** Until the copy has run, another thread that closes the segment's arena is refused, as it is during any call. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void segmentsOfCopiesThatWaitStayOpen(boolean download) throws Exception {
        open("cpu");
        var large = scope.allocate(DType.U8, 64 << 20);
        var copy = scope.allocate(DType.U8, 64 << 20);
        var x = scope.zeros(stream, DType.U8, 64);
        try (var busy = device.openStream(); var mark = device.openEvent()) {
            for (var attempt = 0; ; attempt++) {
                var arena = Arena.ofShared();
                var segment = arena.allocate(64, 16);
                for (var i = 0; i < 20; i++) {
                    copy.copyFrom(busy, large);
                }
                busy.record(mark);
                stream.waitFor(mark);
                var call = new FutureTask<Void>(() -> {
                    if (download) {
                        x.download(stream, segment);
                    } else {
                        x.upload(stream, segment);
                    }
                    return null;
                });
                var thread = Thread.ofPlatform().start(call);
                while (thread.isAlive() && Arrays.stream(thread.getStackTrace())
                        .noneMatch(frame -> frame.getMethodName().startsWith("cul_"))) {
                    Thread.onSpinWait();
                }
                var wasEarly = !mark.isDone();
                while (segment.scope().isAlive()) {
                    try {
                        arena.close();
                    } catch (IllegalStateException e) {
                        Thread.sleep(1);
                    }
                }
                if (mark.isDone()) {
                    call.get();
                    if (wasEarly) {
                        return;
                    }
                } else {  // closed in front of the call, which then has no segment
                    var refused = assertThrows(ExecutionException.class, call::get, "closed in front of the copy");
                    assertInstanceOf(ClosedException.class, refused.getCause());
                }
                assertTrue(attempt < 20, "the machine is too slow to be early");
            }
        }
    }

    @Test
    void refusesBadShapesAndRanges() {
        open("cpu");
        assertThrows(ArgumentException.class, () -> scope.allocate(DType.F32, 2, -1));
        assertThrows(ArgumentException.class, () -> scope.allocate(DType.F32, 1L << 40, 1L << 40));
        assertThrows(ArgumentException.class, () -> scope.allocate(DType.F32, 1, 1, 1, 1, 1, 1, 1, 1, 1));
        var x = counting(2, 3);
        assertThrows(ArgumentException.class, () -> x.slice(0, 1, 3));
        assertThrows(ArgumentException.class, () -> x.slice(2, 0, 1));
        assertThrows(ArgumentException.class, () -> x.select(1, 3));
        assertThrows(ArgumentException.class, () -> x.permute(0, 0));
        assertThrows(ArgumentException.class, () -> x.expand(0, 4));
        assertThrows(ArgumentException.class, () -> x.bitcast(DType.F16));
        assertThrows(ArgumentException.class, () -> x.reshape(1L << 40, 1L << 40));
        assertThrows(ArgumentException.class, () -> x.reshape(1L << 40, -1, 1L << 40));
        var one = x.reshape(1, 1, 6);
        assertThrows(ArgumentException.class, () -> one.expand(0, Long.MAX_VALUE));
        var wide = one.expand(0, 1L << 32);
        assertThrows(ArgumentException.class, () -> wide.expand(1, 1L << 32));
        var error = assertThrows(ArgumentException.class, () -> x.slice(1, 2, 9));
        assertTrue(error.getMessage().contains("f32[2, 3]") && error.getMessage().contains("9"), error.getMessage());
    }
}
