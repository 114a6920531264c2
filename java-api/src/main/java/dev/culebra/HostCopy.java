package dev.culebra;

import dev.culebra.internal.Numeric;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** Copies between tensors and memory of the host. */
final class HostCopy {
    private HostCopy() {}

    static void upload(Stream stream, Tensor target, MemorySegment source) {
        stream.enter("upload");
        try (var staging = Arena.ofConfined()) {
            stream.out(target, "the target");
            target.requireContiguous(stream);
            checkHost(stream, target, source);
            var memory = source.isNative() ? source : staging.allocate(source.byteSize(), 16).copyFrom(source);
            if (target.bytes() > 0) {
                stream.copyAndWait(target.address(), memory, target.bytes());
            }
        } finally {
            stream.exit();
        }
    }

    static void upload(Stream stream, Tensor target, HostBuffer source, long offset_bytes) {
        stream.enter("upload");
        try {
            stream.out(target, "the target");
            target.requireContiguous(stream);
            var memory = source.range(stream, offset_bytes, target.bytes());
            if (target.bytes() > 0) {
                stream.copy(target.address(), memory, target.bytes());
            }
        } finally {
            stream.exit();
        }
    }

    static void download(Stream stream, Tensor source, MemorySegment target) {
        stream.enter("download");
        try (var staging = Arena.ofConfined()) {
            stream.in(source, "the source");
            source.requireContiguous(stream);
            checkHost(stream, source, target);
            if (target.isReadOnly()) {
                throw stream.failure(Status.UNSUPPORTED, "the segment is read-only");
            }
            var memory = target.isNative() ? target : staging.allocate(target.byteSize(), 16);
            if (source.bytes() > 0) {
                stream.copyAndWait(memory, source.address(), source.bytes());
            }
            if (memory != target) {
                target.copyFrom(memory);
            }
        } finally {
            stream.exit();
        }
    }

    static void download(Stream stream, Tensor source, HostBuffer target, long offset_bytes) {
        stream.enter("download");
        try {
            stream.in(source, "the source");
            source.requireContiguous(stream);
            var memory = target.range(stream, offset_bytes, source.bytes());
            if (source.bytes() > 0) {
                stream.copy(memory, source.address(), source.bytes());
            }
        } finally {
            stream.exit();
        }
    }

    private static void checkHost(Stream stream, Tensor tensor, MemorySegment host) {
        if (host.byteSize() != tensor.bytes()) {
            throw stream.failure(Status.SHAPE, "the segment has " + host.byteSize() + " bytes but " + tensor + " has "
                    + tensor.bytes());
        }
        if (!host.isAccessibleBy(Thread.currentThread())) {
            throw stream.failure(Status.UNSUPPORTED, "the segment is confined to another thread than \""
                    + Thread.currentThread().getName() + "\"; use a shared arena");
        }
        if (!host.scope().isAlive()) {
            throw stream.failure(Status.CLOSED, "the segment's arena was closed");
        }
    }

    static int[] ints(Stream stream, Tensor source) {
        var values = new int[arraySize(source, source.elements())];
        get(stream, source, DType.I32, MemorySegment.ofArray(values));
        return values;
    }

    static long[] longs(Stream stream, Tensor source) {
        var values = new long[arraySize(source, source.elements())];
        get(stream, source, DType.I64, MemorySegment.ofArray(values));
        return values;
    }

    static byte[] bytes(Stream stream, Tensor source) {
        var values = new byte[arraySize(source, source.bytes())];
        get(stream, source, source.dtype(), MemorySegment.ofArray(values));
        return values;
    }

    /** Row-major values of a tensor with any strides. */
    private static void get(Stream stream, Tensor source, DType dtype, MemorySegment values) {
        checkType(source, dtype);
        if (source.isContiguous()) {
            download(stream, source, values);
        } else {
            try (var copy = source.contiguous(stream)) {
                download(stream, copy, values);
            }
        }
    }

    static void set(Stream stream, Tensor target, MemorySegment values, DType dtype) {
        checkType(target, dtype);
        if (target.isContiguous()) {
            upload(stream, target, values);
            return;
        }
        try (var compact = target.scope().allocate(dtype, target.shape())) {
            upload(stream, compact, values);
            Ops.copyStrided(stream, compact, target);
        }
    }

    static void setFloats(Stream stream, Tensor target, float[] values) {
        var dtype = target.dtype();
        if (!dtype.isFloat()) {
            throw typeError(target, "a float type");
        }
        var source = MemorySegment.ofArray(values);
        if (dtype != DType.F32) {
            source = MemorySegment.ofArray(new byte[Math.multiplyExact(values.length, dtype.bytes())]);
            for (var i = 0; i < values.length; i++) {
                switch (dtype) {
                    case F16 -> source.set(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i, Float.floatToFloat16(values[i]));
                    case BF16 -> source.set(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i, Numeric.toBf16(values[i]));
                    default -> source.set(ValueLayout.JAVA_BYTE, i, Numeric.toF8(values[i]));
                }
            }
        }
        set(stream, target, source, dtype);
    }

    static float[] floats(Stream stream, Tensor source) {
        var dtype = source.dtype();
        if (!dtype.isFloat()) {
            throw typeError(source, "a float type");
        }
        var bits = MemorySegment.ofArray(bytes(stream, source));
        var values = new float[arraySize(source, source.elements())];
        for (var i = 0; i < values.length; i++) {
            values[i] = switch (dtype) {
                case F32 -> bits.get(ValueLayout.JAVA_FLOAT_UNALIGNED, 4L * i);
                case F16 -> Float.float16ToFloat(bits.get(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i));
                case BF16 -> Numeric.fromBf16(bits.get(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i));
                default -> Numeric.fromF8(bits.get(ValueLayout.JAVA_BYTE, i));
            };
        }
        return values;
    }

    private static int arraySize(Tensor tensor, long size) {
        if (size > Integer.MAX_VALUE - 8) {
            throw new ArgumentException(Status.SHAPE, null, tensor.device().backend(),
                    tensor + " is too large for an array; download it to a MemorySegment");
        }
        return (int) size;
    }

    private static void checkType(Tensor tensor, DType dtype) {
        if (tensor.dtype() != dtype) {
            throw typeError(tensor, dtype.toString());
        }
    }

    private static ArgumentException typeError(Tensor tensor, String wanted) {
        return new ArgumentException(Status.DTYPE, null, tensor.device().backend(), tensor + " must be of " + wanted);
    }
}
