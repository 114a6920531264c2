package dev.culebra;

import org.jspecify.annotations.Nullable;

/**
 * The type of a parameter as Triton writes it: {@code *fp16}, {@code i32}, {@code fp32}; its size is that in the compiled
 * kernel.
 */
record TritonType(String text, Kind kind, int bytes, @Nullable DType element) {
    enum Kind {
        POINTER,
        INTEGER,
        FLOAT,
        CONSTANT
    }

    /** The type of that name; null if this library passes none such. */
    static @Nullable TritonType of(String text) {
        if (text.startsWith("*")) {
            var element = element(text.substring(text.startsWith("*k") ? 2 : 1)); // *k: a pointer to what is only read
            return element == null ? null : new TritonType(text, Kind.POINTER, Long.BYTES, element);
        }
        return switch (text) {
            case "constexpr" -> new TritonType(text, Kind.CONSTANT, 0, null);
            case "i1", "i8", "u8" -> new TritonType(text, Kind.INTEGER, 1, null);
            case "i16", "u16" -> new TritonType(text, Kind.INTEGER, 2, null);
            case "i32", "u32" -> new TritonType(text, Kind.INTEGER, 4, null);
            case "i64", "u64" -> new TritonType(text, Kind.INTEGER, 8, null);
            case "fp16", "bf16" -> new TritonType(text, Kind.FLOAT, 2, null);
            case "fp32", "f32" -> new TritonType(text, Kind.FLOAT, 4, null);
            case "fp64" -> new TritonType(text, Kind.FLOAT, 8, null);
            default -> null;
        };
    }

    private static @Nullable DType element(String text) {
        return switch (text) {
            case "fp16" -> DType.F16;
            case "bf16" -> DType.BF16;
            case "fp32" -> DType.F32;
            case "fp8e4nv" -> DType.F8E4M3;
            case "i1" -> DType.BOOL;
            case "i8" -> DType.I8;
            case "u8" -> DType.U8;
            case "i32", "u32" -> DType.I32;
            case "i64", "u64" -> DType.I64;
            default -> null;
        };
    }

    /** If {@code value} is one of this integer type's. */
    boolean holds(long value) {
        if (text.equals("i1")) {
            return value == 0 || value == 1;
        }
        if (bytes == Long.BYTES) {
            return text.startsWith("i") || value >= 0;
        }
        var bits = bytes * Byte.SIZE;
        return text.startsWith("u")
                ? value >= 0 && value < 1L << bits
                : value >= -(1L << bits - 1) && value < 1L << bits - 1;
    }

    @Override
    public String toString() {
        return text;
    }
}
