package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.NativeLibrary;
import dev.culebra.bindings.generated.culebra_h;
import dev.culebra.internal.Numeric;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import jdk.jfr.Configuration;
import jdk.jfr.Recording;
import jdk.jfr.consumer.RecordingFile;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Java's enums against the C constants, and what the library says of itself. */
@SuppressWarnings("try") // closed twice, or held open only
class SurfaceTest {
    @Test
    void enumsAreTheConstants() {
        NativeLibrary.load();
        for (var status : Status.values()) {
            if (status.ordinal() <= Status.INTERNAL.ordinal()) {
                assertEquals(status.name(), Native.statusName(status.ordinal()));
            }
        }
        assertEquals(Status.INTERNAL, Status.of(99));
        for (var backend : Backend.values()) {
            assertEquals(backend.toString(), culebra_h.cul_backend_name(backend.ordinal()).getString(0));
        }
        assertArrayEquals(
                new int[] {culebra_h.CUL_ACT_NONE(), culebra_h.CUL_ACT_SILU(), culebra_h.CUL_ACT_GELU()},
                ordinals(Activation.NONE, Activation.SILU, Activation.GELU));
        assertArrayEquals(
                new int[] {culebra_h.CUL_EPILOGUE_NONE(), culebra_h.CUL_EPILOGUE_SILU(),
                        culebra_h.CUL_EPILOGUE_SILU_MUL()},
                ordinals(Epilogue.NONE, Epilogue.SILU, Epilogue.SILU_MUL));
        assertArrayEquals(
                new int[] {
                    culebra_h.CUL_FORMAT_PLAIN(), culebra_h.CUL_FORMAT_GPTQ_V1(), culebra_h.CUL_FORMAT_GPTQ_V2(),
                    culebra_h.CUL_FORMAT_GPTQ_AUTO(), culebra_h.CUL_FORMAT_AWQ(),
                            culebra_h.CUL_FORMAT_COMPRESSED_TENSORS()
                },
                ordinals(WeightFormat.PLAIN, WeightFormat.GPTQ_V1, WeightFormat.GPTQ_V2, WeightFormat.GPTQ_AUTO,
                        WeightFormat.AWQ, WeightFormat.COMPRESSED_TENSORS));
        assertArrayEquals(
                new int[] {culebra_h.CUL_SCALING_GROUP(), culebra_h.CUL_SCALING_BLOCK128()},
                ordinals(CheckpointWeights.Scaling.GROUP, CheckpointWeights.Scaling.BLOCK128));
        assertArrayEquals(
                new int[] {culebra_h.CUL_SPARSITY_NONE(), culebra_h.CUL_SPARSITY_2_4()},
                ordinals(CheckpointWeights.Sparsity.NONE, CheckpointWeights.Sparsity.TWO_OF_FOUR));
        assertArrayEquals(
                new int[] {culebra_h.CUL_OPERAND_HALF(), culebra_h.CUL_OPERAND_BYTE()},
                ordinals(CheckpointWeights.Operand.HALF, CheckpointWeights.Operand.BYTE));
        assertArrayEquals(
                new int[] {
                    culebra_h.CUL_QUANTIZE_PER_TOKEN(), culebra_h.CUL_QUANTIZE_PER_BLOCK128(),
                            culebra_h.CUL_QUANTIZE_STATIC()
                },
                ordinals(QuantizeMode.PER_TOKEN, QuantizeMode.PER_BLOCK128, QuantizeMode.STATIC));
        assertArrayEquals(
                new int[] {
                    culebra_h.CUL_FP8_SCALING_TENSOR(), culebra_h.CUL_FP8_SCALING_TOKEN_CHANNEL(),
                            culebra_h.CUL_FP8_SCALING_BLOCK128()
                },
                ordinals(Fp8Scaling.TENSOR, Fp8Scaling.TOKEN_CHANNEL, Fp8Scaling.BLOCK128));
        assertArrayEquals(
                new int[] {culebra_h.CUL_GELU_ERF(), culebra_h.CUL_GELU_TANH()}, ordinals(Gelu.ERF, Gelu.TANH));
        assertArrayEquals(
                new int[] {culebra_h.CUL_STATE_VK(), culebra_h.CUL_STATE_KV()},
                ordinals(RecurrenceOptions.StateLayout.VK, RecurrenceOptions.StateLayout.KV));
        assertArrayEquals(
                new int[] {culebra_h.CUL_GATE_LOG(), culebra_h.CUL_GATE_SOFTPLUS()},
                ordinals(Gate.Mode.LOG, Gate.Mode.SOFTPLUS));
        assertArrayEquals(
                new int[] {culebra_h.CUL_GATE_ACT_SILU(), culebra_h.CUL_GATE_ACT_SIGMOID()},
                ordinals(GateActivation.SILU, GateActivation.SIGMOID));
        assertArrayEquals(
                new int[] {culebra_h.CUL_SCORE_SOFTMAX(), culebra_h.CUL_SCORE_SIGMOID()},
                ordinals(RouteOptions.Score.SOFTMAX, RouteOptions.Score.SIGMOID));
        assertArrayEquals(
                new int[] {
                    culebra_h.CUL_MOE_ACT_SILU(), culebra_h.CUL_MOE_ACT_GELU(), culebra_h.CUL_MOE_ACT_SWIGLU_OAI()
                },
                ordinals(ExpertActivation.Kind.SILU, ExpertActivation.Kind.GELU, ExpertActivation.Kind.SWIGLU_OAI));
        assertArrayEquals(
                new int[] {culebra_h.CUL_EXPERTS_HALF(), culebra_h.CUL_EXPERTS_F8(), culebra_h.CUL_EXPERTS_INT4()},
                ordinals(ExpertWeights.Kind.HALF, ExpertWeights.Kind.F8, ExpertWeights.Kind.INT4));
    }

    private static int[] ordinals(Enum<?>... constants) {
        return java.util.Arrays.stream(constants).mapToInt(Enum::ordinal).toArray();
    }

    /** Every operator of the library has a method, under the same name. */
    @Test
    void everyOperatorHasAMethod() {
        var methods = java.util.Arrays.stream(Ops.class.getMethods()).map(java.lang.reflect.Method::getName).toList();
        var operators = Ops.list();
        assertFalse(operators.isEmpty());
        for (var operator : operators) {
            var parts = operator.name().split("_");
            var camel = new StringBuilder(parts[0]);
            for (var i = 1; i < parts.length; i++) {
                camel.append(Character.toUpperCase(parts[i].charAt(0))).append(parts[i].substring(1));
            }
            assertTrue(methods.contains(camel.toString()), operator + " has no method " + camel);
        }
    }

    @Test
    void backendsSayWhyTheyAreAbsent() {
        for (var availability : Device.available()) {
            assertEquals(availability.isAvailable(), availability.reason().isEmpty(), availability.toString());
            if (!availability.isAvailable()) {
                var error = assertThrows(
                        UnsupportedException.class, () -> Device.open(availability.backend().toString()));
                assertTrue(error.getMessage().contains(availability.reason()), error.getMessage());
            }
        }
        assertThrows(ArgumentException.class, () -> Device.open("tpu"));
        assertThrows(ArgumentException.class, () -> Device.open("cpu:x"));
        assertThrows(ArgumentException.class, () -> Device.open("cpu:7"));
        try (var device = Device.open("cpu:0", DeviceOptions.DEFAULT.withThreads(1))) {
            assertEquals("cpu:0", device.toString());
            assertEquals(1, device.info().multiprocessors());
            assertFalse(device.info().name().isBlank());
        }
    }

    @Test
    void operatorsRefuseWhatTheirContractDoes() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.zeros(stream, DType.F32, 2, 8);
            var weight = scope.zeros(stream, DType.F32, 7);
            var error = assertThrows(ArgumentException.class,
                    () -> Ops.rmsNorm(stream, x, weight, null, x, null, 1e-6f, false));
            assertEquals(Status.SHAPE, error.status());
            assertEquals("rms_norm", error.op());
            assertTrue(error.getMessage().contains("weight") && error.getMessage().contains("7"), error.getMessage());
            error = assertThrows(ArgumentException.class, () -> Ops.argmax(stream, null, x));
            assertEquals(Status.NULL_POINTER, error.status());
            assertEquals(Status.DTYPE,
                    assertThrows(ArgumentException.class,
                            () -> Ops.argmax(stream, x, scope.zeros(stream, DType.I64, 2))).status());
        }
    }

    @Test
    void plansRunNothing() {
        try (var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var x = scope.floats(stream, new float[] {1, 2, 3}, 3);
            var y = scope.zeros(stream, DType.F32, 3);
            var plan = stream.plan(() -> Ops.scale(stream, x, y, 2));
            assertTrue(plan.workspaceBytes() >= 0);
            assertArrayEquals(new float[3], y.floats(stream));
            Ops.scale(stream, x, y, 2);
            assertArrayEquals(new float[] {2, 4, 6}, y.floats(stream));
        }
    }

    @Test
    void recordsEventsForJfr(@TempDir Path directory) throws Exception {
        var file = directory.resolve("culebra.jfr");
        var settings = Configuration.create(Path.of("..", "docs", "culebra.jfc"));
        try (var recording = new Recording(settings); var device = Device.open("cpu"); var stream = device.openStream();
                var scope = device.openScope()) {
            recording.enable("dev.culebra.Wait").withoutThreshold();
            recording.start();
            var x = scope.floats(stream, new float[] {1, 2}, 2);
            var y = scope.allocate(DType.F32, 2);
            Runnable work = () -> Ops.scale(stream, x, y, 2);
            work.run();
            try (var graph = stream.capture(work); var prepared = stream.prepare(work)) {
                graph.launch(stream);
                prepared.run();
            }
            stream.synchronize();
            recording.stop();
            recording.dump(file);
        }
        var events = RecordingFile.readAllEvents(file);
        for (var op : List.of("scale", "graph_launch", "prepared_run")) {
            assertTrue(events.stream().anyMatch(event -> event.getEventType().getName().equals("dev.culebra.Op")
                    && event.getString("op").equals(op) && event.getString("backend").equals("cpu")), op);
        }
        assertEquals(2, events.stream().filter(event -> event.getEventType().getName().equals("dev.culebra.Allocation")
                && event.getLong("bytes") == 8).count());
        assertTrue(events.stream().anyMatch(event -> event.getEventType().getName().equals("dev.culebra.Copy")));
        assertTrue(events.stream().anyMatch(event -> event.getEventType().getName().equals("dev.culebra.Wait")
                && event.getString("op").equals("stream_synchronize")));
    }

    @Test
    void smallFloatsRoundTrip() {
        for (var bits = 0; bits < 256; bits++) {
            var value = Numeric.fromF8((byte) bits);
            if (!Float.isNaN(value)) {
                assertEquals((byte) bits, Numeric.toF8(value));
            }
        }
        for (var bits = 0; bits < 65536; bits++) {
            var value = Numeric.fromBf16((short) bits);
            if (!Float.isNaN(value)) {
                assertEquals((short) bits, Numeric.toBf16(value));
            }
        }
        assertEquals(Numeric.toF8(0.0009765625f), (byte) 0, "half of the smallest: to even");
        assertEquals(Numeric.toF8(0.00146484375f), (byte) 1);
        assertEquals(Numeric.toF8(Math.nextUp(0.0009765625f)), (byte) 1);
        assertEquals(Numeric.toF8(15.5f), (byte) 0x58, "the carry reaches the exponent");
    }
}
