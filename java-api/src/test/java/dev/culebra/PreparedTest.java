package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.bindings.Native;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Calls recorded once and made in one native call. */
@SuppressWarnings("try") // closed early, or held open only
class PreparedTest {
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void repeatsItsCallsInOrder(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var inPlace = new InPlace(scope, stream, 4);
            var x = scope.floats(stream, new float[] {16, 32, 48, 64}, 1, 4);
            var y = scope.zeros(stream, DType.F32, 1, 4);
            var z = scope.zeros(stream, DType.F32, 1, 4);
            try (var prepared = stream.prepare(() -> {
                inPlace.halve(stream, x);
                inPlace.add(stream, x, y);
                z.copyFrom(stream, y);
                x.slice(1, 3, 4).zero(stream);
            })) {
                assertEquals(4, prepared.calls());
                assertArrayEquals(new float[] {16, 32, 48, 64}, x.floats(stream), "preparing runs nothing");
                prepared.run();
                prepared.run();
                assertArrayEquals(new float[] {4, 8, 12, 0}, x.floats(stream));
                assertArrayEquals(new float[] {12, 24, 36, 32}, z.floats(stream));
                x.setFloats(stream, 2, 2, 2, 2);
                prepared.run();
                assertArrayEquals(new float[] {13, 25, 37, 33}, z.floats(stream), "with what the tensors hold then");
            }
        }
    }

    /** A product, and an operator whose struct points to another one. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void itsStructsAreItsOwn(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var values = new byte[64 * 64];
            for (var i = 0; i < values.length; i++) {
                values[i] = (byte) (i * 7 % 16);
            }
            var q = scope.allocate(DType.U8, 64, 64);
            q.setBytes(stream, values);
            var scales = scope.allocate(DType.F16, 64, 1);
            scales.fill(stream, 0x3C);
            var weights = Ops.packWeights(stream, scope, CheckpointWeights.of(WeightFormat.PLAIN, 4, -1, q, scales, null, null));
            var x = scope.allocate(DType.F16, 3, 64);
            x.fill(stream, 0x2E);
            var direct = scope.allocate(DType.F16, 3, 64);
            var y = scope.zeros(stream, DType.F16, 3, 64);
            Ops.w4a16Gemm(stream, x, weights, null, direct, Epilogue.NONE);
            var unpacked = plain(scope, stream);
            var elsewhere = plain(scope, stream);
            try (var prepared = stream.prepare(() -> {
                Ops.w4a16Gemm(stream, x, weights, null, y, Epilogue.NONE);
                Ops.unpackWeights(stream, weights, unpacked);
            })) {
                Ops.unpackWeights(stream, weights, elsewhere); // the stream's structs and workspace have other contents now
                stream.reserveWorkspace(3 << 20);
                elsewhere.qweight().zero(stream);
                prepared.run();
                assertArrayEquals(direct.bytes(stream), y.bytes(stream));
                assertArrayEquals(values, unpacked.qweight().bytes(stream));
                assertArrayEquals(new byte[values.length], elsewhere.qweight().bytes(stream));
            }
        }
    }

    private static CheckpointWeights plain(Scope scope, Stream stream) {
        return CheckpointWeights.of(WeightFormat.PLAIN, 4, -1, scope.zeros(stream, DType.U8, 64, 64),
                scope.zeros(stream, DType.F16, 64, 1), null, null);
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void isRecordedInAGraph(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var inPlace = new InPlace(scope, stream, 2);
            var x = scope.floats(stream, new float[] {8, 16}, 1, 2);
            try (var prepared = stream.prepare(() -> inPlace.halve(stream, x)); var graph = stream.capture(() -> {
                prepared.run();
                prepared.run();
            })) {
                graph.launch(stream);
                assertArrayEquals(new float[] {2, 4}, x.floats(stream));
                prepared.close();
                assertThrows(ClosedException.class, () -> graph.launch(stream), "its workspace is gone");
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void closedTensorsAreRefused(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 4, 4);
            var y = scope.zeros(stream, DType.F32, 2, 4);
            var view = x.slice(0, 0, 2);
            try (var prepared = stream.prepare(() -> Ops.scale(stream, view, y, 2))) {
                prepared.run();
                view.close();
                // Its descriptor is another tensor's now.
                var next = x.slice(0, 2, 4);
                var error = assertThrows(ClosedException.class, prepared::run);
                assertTrue(error.getMessage().contains("x, tensor"), error.getMessage());
                assertArrayEquals(new float[8], next.floats(stream), "the stream is usable");
                prepared.close();
                prepared.close();
                assertThrows(ClosedException.class, prepared::run);
                stream.close();
                assertThrows(ClosedException.class, prepared::run);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void whatCannotBePreparedIsRefused(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope();
                var event = device.openEvent()) {
            var x = scope.zeros(stream, DType.F32, 3);
            var y = scope.zeros(stream, DType.F32, 3);
            try (var other = stream.prepare(() -> Ops.scale(stream, x, y, 1));
                    var graph = stream.capture(() -> Ops.scale(stream, x, y, 1))) {
                for (Runnable work : new Runnable[] {
                    stream::synchronize,
                    () -> stream.record(event),
                    () -> stream.waitFor(event),
                    () -> x.setFloats(stream, 1, 2, 3),
                    () -> x.floats(stream),
                    () -> stream.prepare(() -> {}),
                    () -> stream.capture(() -> {}),
                    other::run,
                    () -> graph.launch(stream),
                }) {
                    assertThrows(UnsupportedException.class, () -> stream.prepare(work));
                    Ops.add(stream, x, x, y);
                    stream.synchronize();
                }
                assertThrows(ArgumentException.class, () -> stream.prepare(() -> Ops.scale(stream, x, null, 1)));
                other.run();
                assertEquals(0, stream.prepare(() -> {}).calls());
                assertThrows(UnsupportedException.class, () -> stream.capture(() -> stream.prepare(() -> {})));
            }
        }
    }

    /** A call that the library refuses when it is made again: the one that its list holds is named. */
    @Test
    void aRefusalNamesTheCall() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 3);
            var y = scope.zeros(stream, DType.F32, 3);
            var recorder = new CallRecorder();
            recorder.fill("fill", x.address(), 1, 12);
            recorder.copy("copy", y.address(), MemorySegment.NULL, 12);
            try (var prepared = recorder.finish(stream, MemorySegment.NULL)) {
                var error = assertThrows(ArgumentException.class, prepared::run);
                assertTrue(error.getMessage().contains("call 1 of 2, copy: "), error.getMessage());
                assertEquals(Status.NULL_POINTER, error.status());
                assertEquals(0x01010101, Float.floatToRawIntBits(x.floats(stream)[2]), "the call before it was made");
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void theWorkspaceIsGivenBack(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var logits = scope.zeros(stream, DType.F32, 2, 5000);
            var temperature = scope.floats(stream, new float[] {1, 1}, 2);
            var topK = scope.ints(stream, new int[] {3, 3}, 2);
            var topP = scope.floats(stream, new float[] {1, 1}, 2);
            var minP = scope.floats(stream, new float[] {0, 0}, 2);
            var seed = scope.longs(stream, new long[] {1, 2}, 2);
            var ids = scope.allocate(DType.I32, 2);
            var before = device.memory().statistics().liveAllocations();
            var prepared = stream.prepare(() ->
                    Ops.sample(stream, logits, temperature, topK, topP, minP, seed, seed, ids, null));
            prepared.run();
            var drawn = ids.ints(stream);
            prepared.close();
            stream.synchronize();
            assertEquals(before, device.memory().statistics().liveAllocations());
            Ops.sample(stream, logits, temperature, topK, topP, minP, seed, seed, ids, null);
            assertArrayEquals(ids.ints(stream), drawn);
        }
    }

    @Test
    void everyOperatorHasItsFunction() {
        for (var op : Ops.list()) {
            assertTrue(Native.function("cul_" + op.name()).address() != 0, op.name());
        }
    }

    @Test
    void kernelsOfModulesArePrepared() throws IOException {
        TestDriver.use();
        try (var device = Device.open("simt"); var stream = device.openStream(); var scope = device.openScope();
                var module = CudaModule.load(device, TestDriver.file("tests/native/axpy.ptx"))) {
            var x = scope.floats(stream, new float[] {1, 2, 3}, 3);
            var y = scope.zeros(stream, DType.F32, 3);
            var call = module.kernel("axpy").prepare().block(32, 1, 1).set(0, y).set(1, x).set(2, 3).set(3, 0.5f);
            var prepared = stream.prepare(() -> {
                call.launch(stream);
                call.set(3, 2f).launch(stream);
            });
            call.set(3, 1000f); // the list has its own copies
            prepared.run();
            assertArrayEquals(new float[] {2.5f, 5, 7.5f}, y.floats(stream));
            module.close();
            var error = assertThrows(ClosedException.class, prepared::run);
            assertTrue(error.getMessage().contains("axpy.ptx"), error.getMessage());
        } finally {
            TestDriver.remove();
        }
    }

    @Test
    void runsAllocateNothing() {
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        try (var device = Device.open("cpu", DeviceOptions.DEFAULT.withThreads(1)); var stream = device.openStream();
                var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 1, 8);
            var weight = scope.zeros(stream, DType.F32, 8);
            Runnable work = () -> {
                for (var i = 0; i < 16; i++) {
                    Ops.rmsNorm(stream, x, weight, null, x, null, 1e-6f, false);
                }
            };
            try (var prepared = stream.prepare(work); var graph = stream.capture(work)) {
                for (Runnable replay : new Runnable[] {prepared::run, () -> graph.launch(stream)}) {
                    var least = Long.MAX_VALUE;
                    for (var round = 0; round < 20 && least > 0; round++) {
                        var before = threads.getCurrentThreadAllocatedBytes();
                        for (var i = 0; i < 2000; i++) {
                            replay.run();
                        }
                        least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
                        stream.synchronize();
                    }
                    assertTrue(least < 2000, least + " bytes in 2000 runs");
                }
            }
        }
    }

    @Test
    void countersCount() {
        try (var device = Device.open("cpu"); var scope = device.openScope()) {
            try (var stream = device.openStream()) {
                var x = scope.zeros(stream, DType.F32, 4);
                var y = scope.zeros(stream, DType.F32, 4);
                x.setFloats(stream, 1, 2, 3, 4);
                Ops.scale(stream, x, y, 2);
                try (var prepared = stream.prepare(() -> Ops.scale(stream, x, y, 2));
                        var graph = stream.capture(() -> Ops.scale(stream, x, y, 2))) {
                    prepared.run();
                    prepared.run();
                    graph.launch(stream);
                }
                stream.plan(() -> Ops.scale(stream, x, y, 2));
                stream.synchronize();
            }
            var counters = device.counters();
            assertEquals(4, counters.operators(), "one call, one captured, two prepared");
            assertEquals(1, counters.copies());
            assertEquals(16, counters.copiedBytes());
            assertEquals(1, counters.graphLaunches());
            assertEquals(2, counters.preparedRuns());
            assertEquals(2, counters.waits());
            assertTrue(counters.waitedNanos() > 0);
        }
    }
}
