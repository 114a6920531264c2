package dev.culebra.conformance;

import dev.culebra.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * Elements in memory of the host, row-major and little endian.
 *
 * @param dtype their type
 * @param shape the extents
 * @param data exactly the elements
 */
public record HostTensor(DType dtype, long[] shape, MemorySegment data) {
    private static final ValueLayout.OfShort SHORT = ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfInt INT = ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final float F8_MAX = 448;

    /** Zeros. */
    public static HostTensor zeros(DType dtype, long... shape) {
        return new HostTensor(dtype, shape, Arena.ofAuto().allocate(Math.max(1, elements(shape) * dtype.bytes()), 16)
                .asSlice(0, elements(shape) * dtype.bytes()));
    }

    /** Over a copy of the bytes. */
    public static HostTensor of(DType dtype, long[] shape, byte[] bytes) {
        return new HostTensor(dtype, shape, MemorySegment.ofArray(bytes));
    }

    /** These values, rounded to {@code dtype}. */
    public static HostTensor of(DType dtype, long[] shape, double... values) {
        var tensor = zeros(dtype, shape);
        for (var i = 0; i < values.length; i++) {
            tensor.set(i, values[i]);
        }
        return tensor;
    }

    /** The product of the extents. */
    public static long elements(long... shape) {
        return Arrays.stream(shape).reduce(1, Math::multiplyExact);
    }

    /** The number of elements. */
    public long elements() {
        return elements(shape);
    }

    /** One extent; negative: from the end. */
    public long size(int dimension) {
        return shape[dimension < 0 ? dimension + shape.length : dimension];
    }

    /** Element {@code i} in row-major order; exact for every type but I64. */
    public double get(long i) {
        return switch (dtype) {
            case F32 -> Float.intBitsToFloat(data.get(INT, 4 * i));
            case F16 -> Float.float16ToFloat(data.get(SHORT, 2 * i));
            case BF16 -> Float.intBitsToFloat(data.get(SHORT, 2 * i) << 16);
            case F8E4M3 -> fromF8(data.get(ValueLayout.JAVA_BYTE, i));
            case I8 -> data.get(ValueLayout.JAVA_BYTE, i);
            case U8, BOOL -> data.get(ValueLayout.JAVA_BYTE, i) & 0xFF;
            case I32 -> data.get(INT, 4 * i);
            case I64 -> data.get(LONG, 8 * i);
        };
    }

    /** An element of an integer tensor. */
    public long integer(long i) {
        return dtype == DType.I64 ? data.get(LONG, 8 * i) : (long) get(i);
    }

    /** Sets an element of an I64 tensor. */
    public void setInteger(long i, long value) {
        data.set(LONG, 8 * i, value);
    }

    /** Rounds to nearest, ties to even; f8 saturates. */
    public void set(long i, double value) {
        switch (dtype) {
            case F32 -> data.set(INT, 4 * i, Float.floatToRawIntBits((float) value));
            case F16 -> data.set(SHORT, 2 * i, Float.floatToFloat16((float) value));
            case BF16 -> data.set(SHORT, 2 * i, toBf16((float) value));
            case F8E4M3 -> data.set(ValueLayout.JAVA_BYTE, i, toF8((float) value));
            case I8, U8, BOOL -> data.set(ValueLayout.JAVA_BYTE, i, (byte) (long) value);
            case I32 -> data.set(INT, 4 * i, (int) value);
            case I64 -> data.set(LONG, 8 * i, (long) value);
        }
    }

    /** All elements as {@link #get} gives them. */
    public double[] doubles() {
        var values = new double[Math.toIntExact(elements())];
        Arrays.setAll(values, this::get);
        return values;
    }

    /** If type, shape and every bit are the same. */
    public boolean sameBits(HostTensor other) {
        return dtype == other.dtype && Arrays.equals(shape, other.shape) && data.mismatch(other.data) == -1;
    }

    /** {@code bf16[4, 8]}. */
    @Override
    public String toString() {
        return dtype + Arrays.toString(shape);
    }

    private static short toBf16(float value) {
        var bits = Float.floatToRawIntBits(value);
        return (short) ((Float.isNaN(value) ? bits | 1 << 22 : bits + 0x7FFF + (bits >>> 16 & 1)) >>> 16);
    }

    private static double fromF8(byte bits) {
        var exponent = bits >> 3 & 15;
        var mantissa = bits & 7;
        if ((bits & 0x7F) == 0x7F) {
            return Double.NaN;
        }
        var magnitude = exponent == 0 ? Math.scalb((double) mantissa, -9) : Math.scalb(8.0 + mantissa, exponent - 10);
        return bits < 0 ? -magnitude : magnitude;
    }

    private static byte toF8(float value) {
        var sign = Float.floatToRawIntBits(value) >>> 24 & 0x80;
        if (Float.isNaN(value)) {
            return (byte) (sign | 0x7F);
        }
        var magnitude = Math.min(Math.abs(value), F8_MAX);
        // A binade of exponent e has units of 2^(e-3), subnormals those of the lowest one; a carry moves on to the next binade.
        var exponent = Math.max(Math.getExponent(magnitude), -6);
        return (byte) (sign | (exponent + 6 << 3) + (int) Math.rint(Math.scalb(magnitude, 3 - exponent)));
    }
}
