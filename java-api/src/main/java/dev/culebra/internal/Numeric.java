package dev.culebra.internal;

/** The small float types, one value at a time: round to nearest even, as the native library rounds. */
public final class Numeric {
    private static final float F8_MAX = 448f;

    private Numeric() {}

    /** The bfloat16 nearest to {@code value}. */
    public static short toBf16(float value) {
        var bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            return (short) (bits >>> 16 | 0x40);
        }
        return (short) (bits + 0x7FFF + (bits >>> 16 & 1) >>> 16);
    }

    /** The value of a bfloat16. */
    public static float fromBf16(short bits) {
        return Float.intBitsToFloat(bits << 16);
    }

    /** The f8e4m3 nearest to {@code value}; magnitudes beyond 448, infinities too, saturate. */
    public static byte toF8(float value) {
        var sign = Float.floatToRawIntBits(value) >>> 24 & 0x80;
        if (Float.isNaN(value)) {
            return (byte) (sign | 0x7F);
        }
        var magnitude = Math.min(Math.abs(value), F8_MAX);
        // 1/512 is the unit of subnormals; a normal number of exponent e has units of 2^(e-3).
        var exponent = Math.max(Math.getExponent(magnitude), -6);
        var units = (int) Math.rint(magnitude * Math.scalb(1f, 3 - exponent));
        // 16 units of one binade are 8 of the next: the carry of the addition below does that.
        return (byte) (sign | (exponent + 6 << 3) + units);
    }

    /** The value of an f8e4m3. */
    public static float fromF8(byte bits) {
        var exponent = bits >>> 3 & 15;
        var mantissa = bits & 7;
        if (exponent == 15 && mantissa == 7) {
            return Float.NaN;
        }
        var magnitude = exponent == 0 ? Math.scalb((float) mantissa, -9) : Math.scalb(8f + mantissa, exponent - 10);
        return bits < 0 ? -magnitude : magnitude;
    }
}
