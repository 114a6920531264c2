package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.lang.ref.WeakReference;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Copies between devices, of which either may be closed first. What simt has queued runs when a thread waits for it, no sooner. */
@SuppressWarnings("try") // closed early, or held open only
class TwoDevicesTest {
    private static final DeviceOptions POISON = DeviceOptions.DEFAULT.withPoison(true);

    private static float[] ones(int n) {
        var values = new float[n];
        Arrays.fill(values, 1);
        return values;
    }

    @ParameterizedTest
    @ValueSource(ints = {64, 1 << 20})
    void memoryOutlivesItsDeviceWhileAnotherOneReadsIt(int n) {
        try (var far = Device.open("simt"); var stream = far.openStream(); var scope = far.openScope()) {
            var near = Device.open("cpu", POISON);
            var y = scope.allocate(DType.F32, n);
            y.copyFrom(stream, near.openScope().floats(near.openStream(), ones(n), n));
            near.close();
            try (var other = Device.open("cpu", POISON); var inner = other.openScope()) {
                inner.allocate(DType.F32, n);  // takes the place of what was freed too early
                assertArrayEquals(ones(n), y.floats(stream));
            }
            assertThrows(ClosedException.class, () -> near.memory().statistics());
        }
    }

    @Test
    void pinnedMemoryToo() {
        try (var far = Device.open("simt"); var stream = far.openStream(); var scope = far.openScope()) {
            var near = Device.open("cpu");
            var buffer = near.pin(64);
            buffer.segment().fill((byte) 3);
            var y = scope.allocate(DType.U8, 64);
            y.upload(stream, buffer, 0);
            near.close();
            var expected = new byte[64];
            Arrays.fill(expected, (byte) 3);
            assertArrayEquals(expected, y.bytes(stream));
        }
    }

    /** The memory is in use on streams of three devices, one of its own. */
    @Test
    void theReaderMayCloseFirst() {
        try (var near = Device.open("cpu"); var stream = near.openStream(); var scope = near.openScope()) {
            var a = Device.open("simt");
            var b = Device.open("simt:1");
            var x = scope.floats(stream, ones(64), 64);
            a.openScope().allocate(DType.F32, 64).copyFrom(a.openStream(), x);
            b.openScope().allocate(DType.F32, 64).copyFrom(b.openStream(), x);
            x.close();
            stream.synchronize();
            assertEquals(1, near.memory().statistics().liveAllocations(), "both have it before them");
            a.close();
            assertEquals(1, near.memory().statistics().liveAllocations(), "one has it before it");
            b.close();
            assertEquals(0, near.memory().statistics().liveAllocations());
        }
    }

    @Test
    void aReaderThatHasReadGivesBack() {
        try (var near = Device.open("cpu"); var far = Device.open("simt"); var stream = far.openStream();
                var own = near.openStream(); var source = near.openScope(); var target = far.openScope()) {
            var x = source.zeros(own, DType.F32, 64);
            target.allocate(DType.F32, 64).copyFrom(stream, x);
            x.close();
            own.synchronize();
            assertEquals(1, near.memory().statistics().liveAllocations());
            stream.synchronize();
            assertEquals(0, near.memory().statistics().liveAllocations());
        }
    }

    /** Its threads may still compute in memory that only Java objects keep: they must not be collected. */
    @Test
    void aDeviceThatNobodyHoldsStays() throws InterruptedException {
        var device = new WeakReference<>(Device.open("cpu"));
        for (var i = 0; i < 5; i++) {
            System.gc();
            Thread.sleep(5);
        }
        var kept = device.get();
        assertNotNull(kept);
        kept.close();
    }
}
