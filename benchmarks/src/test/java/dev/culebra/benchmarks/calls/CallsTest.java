package dev.culebra.benchmarks.calls;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

/** The ways do the same work, or timing them beside each other would say nothing. */
class CallsTest {
    /** {@code x / sqrt(mean(x^2) + eps) * weight} in double. */
    private static float[] expected() {
        var squares = 0.0;
        for (var x : Calls.X) {
            squares += x * x;
        }
        var y = new float[Calls.X.length];
        for (var i = 0; i < y.length; i++) {
            y[i] = (float) (Calls.X[i] / Math.sqrt(squares / y.length + Calls.EPS) * Calls.WEIGHT[i]);
        }
        return y;
    }

    @Test
    void everyWayComputesTheSame() {
        var api = new Api();
        api.backend = "cpu";
        api.open();
        api.rmsNorm();
        api.sample();
        assertArrayEquals(expected(), api.normalised(), 1e-5f);
        var drawn = api.drawn();
        assertTrue(drawn == 3 || drawn == 5, "the two largest logits, 4 and 9, have nearly all of the mass; drawn: " + drawn);

        var bindings = new Bindings();
        bindings.backend = "cpu";
        bindings.open();
        bindings.rmsNorm();
        bindings.sample();
        assertArrayEquals(api.normalised(), bindings.operands().normalised());
        assertEquals(drawn, bindings.operands().drawn());

        var jni = new Jni();
        jni.backend = "cpu";
        jni.open();
        jni.rmsNorm();
        jni.sample();
        assertArrayEquals(api.normalised(), jni.operands().normalised());
        assertEquals(drawn, jni.operands().drawn());

        var batch = new Batch();
        batch.backend = "cpu";
        batch.open();
        batch.rmsNorm();
        batch.sample();
        batch.rmsNormChecked();
        batch.sampleChecked();
        assertArrayEquals(api.normalised(), batch.normalised());
        assertEquals(drawn, batch.drawn());
        batch.close();

        api.rmsNormGraph();
        api.sampleGraph();
        assertArrayEquals(expected(), api.normalised(), 1e-5f);
        assertEquals(drawn, api.drawn());

        assertEquals(bindings.noop(), jni.noop());
        assertTrue(api.query() && bindings.query() && jni.query());
        api.close();
        bindings.close();
        jni.close();
    }

    @Test
    void checkedCallsRunNothing() {
        var bindings = new Bindings();
        bindings.backend = "cpu";
        bindings.open();
        bindings.rmsNormChecked();
        bindings.sampleChecked();
        assertArrayEquals(Calls.X, bindings.operands().normalised());
        assertEquals(-1, bindings.operands().drawn());
        bindings.close();

        var jni = new Jni();
        jni.backend = "cpu";
        jni.open();
        jni.rmsNormChecked();
        jni.sampleChecked();
        assertArrayEquals(Calls.X, jni.operands().normalised());
        assertEquals(-1, jni.operands().drawn());
        jni.close();
    }

    @Test
    void jcudaReachesADriver() {
        var jcuda = new JCuda();
        jcuda.open();
        assertTrue(jcuda.noop() > 0);
        assertEquals(0, jcuda.query());
        jcuda.launch();
        jcuda.close();
    }
}
