package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.DType;
import dev.culebra.conformance.HostTensor;
import java.lang.foreign.ValueLayout;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** What the tests themselves compute with. */
class OracleTest {
    @Test
    void f8IsExactAndRoundsToNearestEven() {
        var bytes = HostTensor.zeros(DType.F8E4M3, 256);
        var copy = HostTensor.zeros(DType.F8E4M3, 256);
        for (var i = 0; i < 256; i++) {
            bytes.data().set(ValueLayout.JAVA_BYTE, i, (byte) i);
            if ((i & 0x7F) != 0x7F) {
                copy.set(i, bytes.get(i));
            }
        }
        assertTrue(IntStream.range(0, 256).allMatch(i -> Double.isNaN(bytes.get(i)) == ((i & 0x7F) == 0x7F)));
        bytes.set(0x7F, 0);
        bytes.set(0xFF, 0);
        assertEquals(-1, bytes.data().mismatch(copy.data()));
        assertEquals(448, bytes.get(0x7E));
        assertEquals(0x1p-9, bytes.get(1));
        copy.set(0, 17); // between 16 and 18: even mantissa
        assertEquals(16, copy.get(0));
        copy.set(0, 19);
        assertEquals(20, copy.get(0));
        copy.set(0, -1e9);
        assertEquals(-448, copy.get(0));
    }

    @Test
    void halvesRoundToNearestEven() {
        var half = HostTensor.of(DType.BF16, new long[] {3}, 1 + 0x1p-8, 1 + 0x3p-8, -3.0e38);
        assertEquals(1, half.get(0));
        assertEquals(1 + 0x1p-6, half.get(1));
        assertEquals(-3.0e38, half.get(2), 1e36);
        assertEquals(1, HostTensor.of(DType.F16, new long[] {1}, 1 + 0x1p-11).get(0));
    }
}
