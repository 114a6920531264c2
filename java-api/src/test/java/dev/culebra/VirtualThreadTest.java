package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Thousands of virtual threads share a device and a few streams; waiting parks them. */
@Timeout(120)
class VirtualThreadTest {
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void manyThreadsFewStreams(String backend) throws Exception {
        var threads = 4000;
        try (var device = Device.open(backend); var executor = Executors.newVirtualThreadPerTaskExecutor()) {
            var streams = new ArrayBlockingQueue<Stream>(4);
            for (var i = 0; i < 4; i++) {
                streams.add(device.openStream());
            }
            var results = new ArrayList<Future<Float>>();
            for (var i = 0; i < threads; i++) {
                var number = i;
                results.add(executor.submit(() -> {
                    var stream = streams.take();
                    try (var scope = device.openScope()) {
                        var x = scope.floats(stream, new float[] {number, 1}, 2);
                        var y = scope.allocate(DType.F32, 2);
                        Ops.add(stream, x, x, y);
                        return y.floats(stream)[0];
                    } finally {
                        streams.add(stream);
                    }
                }));
            }
            for (var i = 0; i < threads; i++) {
                assertEquals(2f * i, results.get(i).get());
            }
            for (var stream : streams) {
                stream.close();
            }
            assertEquals(0, device.memory().statistics().liveAllocations());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aFutureIsDoneWhenTheWorkHasRun(String backend) throws Exception {
        try (var device = Device.open(backend); var scope = device.openScope(); var stream = device.openStream()) {
            var x = scope.zeros(stream, DType.F32, 1 << 20);
            for (var i = 0; i < 50; i++) {
                x.fill(stream, i);
            }
            var future = stream.toFuture();
            future.get(60, TimeUnit.SECONDS);
            assertTrue(stream.isDone());
            assertEquals(Float.intBitsToFloat(0x31313131), x.floats(stream)[0]);
        }
    }

    /** The cpu looks at cu_seqlens when the operator runs. */
    @Test
    void aFutureFailsWithTheDevice() {
        var device = Device.open("cpu");
        var stream = device.openStream();
        var scope = device.openScope();
        var x = scope.zeros(stream, DType.F32, 1, 4, 8);
        var w = scope.zeros(stream, DType.F32, 8, 2);
        var y = scope.allocate(DType.F32, 1, 4, 8);
        var backwards = Sequences.packed(scope.ints(stream, new int[] {0, 4, 2}, 3));
        Ops.causalConv1d(stream, x, w, null, null, backwards, y, null, Activation.NONE);
        var failed = assertThrows(ExecutionException.class, () -> stream.toFuture().get(60, TimeUnit.SECONDS));
        assertInstanceOf(DeviceFailedException.class, failed.getCause());
        assertThrows(DeviceFailedException.class, device::close);
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void aCaptureHasNoFuture(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream()) {
            stream.capture(() -> assertThrows(UnsupportedException.class, stream::toFuture)).close();
        }
    }
}
