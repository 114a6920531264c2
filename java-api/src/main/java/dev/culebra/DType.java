package dev.culebra;

import java.util.Locale;

/** Element types. Memory is little endian. */
public enum DType {
    /** IEEE 754 binary32. */
    F32(2, 32, "F32"),
    /** IEEE 754 binary16. */
    F16(2, 16, "F16"),
    /** The upper half of a binary32. */
    BF16(4, 16, "BF16"),
    /** 8-bit float: 4 exponent and 3 mantissa bits, no infinities, largest value 448. */
    F8E4M3(10, 8, "F8_E4M3"),
    /** Signed byte. */
    I8(0, 8, "I8"),
    /** Unsigned byte. */
    U8(1, 8, "U8"),
    /** Signed 32-bit integer. */
    I32(0, 32, "I32"),
    /** Signed 64-bit integer. */
    I64(0, 64, "I64"),
    /** One byte, 0 or 1. */
    BOOL(6, 8, "BOOL");

    /** DLPack's type code. */
    final int code;

    final int bits;
    private final String safeTensorsName;

    DType(int code, int bits, String safeTensorsName) {
        this.code = code;
        this.bits = bits;
        this.safeTensorsName = safeTensorsName;
    }

    /** Size of an element in bytes. */
    public int bytes() {
        return bits / 8;
    }

    /** If elements are floating-point numbers. */
    public boolean isFloat() {
        return this == F32 || isHalf() || this == F8E4M3;
    }

    /** If it is {@link #F16} or {@link #BF16}, the two types that the mixed-precision operators call half. */
    public boolean isHalf() {
        return this == F16 || this == BF16;
    }

    /** The name in the header of a safetensors file. */
    public String safeTensorsName() {
        return safeTensorsName;
    }

    /** The name in messages, cases and tables: {@code f32}, {@code bf16}, {@code f8e4m3}. */
    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
