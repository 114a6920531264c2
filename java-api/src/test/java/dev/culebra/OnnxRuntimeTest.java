package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtProvider;
import ai.onnxruntime.OrtSession;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Tensors shared with ONNX Runtime on cpu: the same memory on both sides, nothing copied. */
class OnnxRuntimeTest {
    private static final long[] SHAPE = {2, 3};

    @Test
    void ourMemoryIsItsInputAndOutput() throws OrtException {
        var environment = OrtEnvironment.getEnvironment();
        try (var options = new OrtSession.SessionOptions(); var session = environment.createSession(addition(), options);
                var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope()) {
            var a = scope.allocate(DType.F32, SHAPE);
            var b = scope.floats(stream, new float[] {10, 20, 30, 40, 50, 60}, SHAPE);
            var c = scope.zeros(stream, DType.F32, SHAPE);
            Ops.scale(stream, scope.floats(stream, new float[] {1, 2, 3, 4, 5, 6}, SHAPE), a, 2);
            try (var aView = a.hostView(stream); var bView = b.hostView(stream); var cView = c.hostView(stream);
                    var aOnnx = tensor(environment, aView); var bOnnx = tensor(environment, bView);
                    var cOnnx = tensor(environment, cView)) {
                assertEquals(a.pointer(), address(aOnnx), "its input is our memory");
                assertEquals(c.pointer(), address(cOnnx), "its output is our memory");
                session.run(Map.of("a", aOnnx, "b", bOnnx), Map.of("c", cOnnx)).close();
                assertEquals(48, cView.buffer().asFloatBuffer().get(3));
            }
            assertArrayEquals(new float[] {12, 24, 36, 48, 60, 72}, c.floats(stream));
        }
    }

    @Test
    void itsMemoryIsOurTensor() throws OrtException {
        var environment = OrtEnvironment.getEnvironment();
        var buffer = ByteBuffer.allocateDirect(24 + 16).alignedSlice(16).order(ByteOrder.nativeOrder()).limit(24).slice()
                .order(ByteOrder.nativeOrder());
        try (var options = new OrtSession.SessionOptions(); var session = environment.createSession(addition(), options);
                var device = Device.open("cpu"); var stream = device.openStream(); var scope = device.openScope();
                var result = OnnxTensor.createTensor(environment, buffer.asFloatBuffer(), SHAPE);
                var one = OnnxTensor.createTensor(environment, new float[][] {{1, 2, 3}, {4, 5, 6}})) {
            session.run(Map.of("a", one, "b", one), Map.of("c", result)).close();
            var x = scope.wrap(MemorySegment.ofBuffer(result.getBufferRef().orElseThrow()), DType.F32, SHAPE);
            assertEquals(address(result), x.pointer());
            assertArrayEquals(new float[] {2, 4, 6, 8, 10, 12}, x.floats(stream));
            x.setFloats(stream, 0, 0, 0, 0, 0, 7);
            assertEquals(7, result.getFloatBuffer().get(5));
        }
    }

    /** Its Java API has no binding to device memory (onnxruntime issue 26209): what there would be to test is said, not skipped. */
    @Test
    void saysIfDeviceMemoryCouldBeBound() {
        var cuda = OrtEnvironment.getAvailableProviders().contains(OrtProvider.CUDA);
        boolean binding;
        try {
            Class.forName("ai.onnxruntime.OrtIoBinding");
            binding = true;
        } catch (ClassNotFoundException e) {
            binding = false;
        }
        System.out.println("ONNX Runtime: CUDA provider " + (cuda ? "present" : "absent") + ", IOBinding in its Java API "
                + (binding ? "present" : "absent"));
        assertTrue(!binding, "its Java API can bind device memory now: docs/interop.md says that it cannot");
    }

    private static OnnxTensor tensor(OrtEnvironment environment, HostView view) throws OrtException {
        return OnnxTensor.createTensor(environment, view.buffer().asFloatBuffer(), SHAPE);
    }

    private static long address(OnnxTensor tensor) {
        return MemorySegment.ofBuffer(tensor.getBufferRef().orElseThrow()).address();
    }

    // ------------------------------------------------------------------------------ an ONNX model, in protobuf's encoding

    /** {@code c = a + b}, f32 [2, 3]: ModelProto of version 8 with opset 17. */
    private static byte[] addition() {
        var node = join(text(1, "a"), text(1, "b"), text(2, "c"), text(4, "Add"));
        var graph = join(block(1, node), text(2, "addition"), block(11, value("a")), block(11, value("b")), block(12, value("c")));
        return join(number(1, 8), block(7, graph), block(8, number(2, 17)));
    }

    private static byte[] value(String name) {
        var extents = join(block(1, number(1, SHAPE[0])), block(1, number(1, SHAPE[1])));
        return join(text(1, name), block(2, block(1, join(number(1, 1), block(2, extents)))));
    }

    private static byte[] number(int field, long value) {
        return new byte[] {(byte) (field << 3), (byte) value};
    }

    private static byte[] text(int field, String value) {
        return block(field, value.getBytes(StandardCharsets.UTF_8));
    }

    private static byte[] block(int field, byte... contents) {
        if (contents.length > 127) {
            return join(new byte[] {(byte) (field << 3 | 2), (byte) (contents.length & 127 | 128), (byte) (contents.length >> 7)}, contents);
        }
        return join(new byte[] {(byte) (field << 3 | 2), (byte) contents.length}, contents);
    }

    private static byte[] join(byte[]... parts) {
        var out = new ByteArrayOutputStream();
        for (var part : parts) {
            out.writeBytes(part);
        }
        return out.toByteArray();
    }
}
