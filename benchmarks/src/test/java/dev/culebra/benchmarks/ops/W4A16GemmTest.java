package dev.culebra.benchmarks.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;

class W4A16GemmTest {
    private static W4A16Gemm small() {
        var gemm = new W4A16Gemm();
        gemm.backend = "cpu";
        gemm.m = 3;
        gemm.n = 128;
        gemm.k = 256;
        gemm.rotatedBytes = 3 * 128 * 256 / 2;
        gemm.open();
        return gemm;
    }

    @Test
    void resultsAreChecked() {
        var gemm = small();
        gemm.w4a16Gemm();
        gemm.close();
    }

    @Test
    void aWrongLastResultIsFound() {
        var gemm = small();
        gemm.c.zero(gemm.stream);
        assertThrows(IllegalStateException.class, gemm::close);
    }

    @Test
    void bytesOfOneCall() {
        // 4 bits a weight, an f16 scale for 128 of them, an activation and a result of f16
        assertEquals(128 * 256 / 2 + 128 * 2 * 2 + 256 * 2 + 128 * 2, W4A16Gemm.leastBytes(1, 128, 256));
    }
}
