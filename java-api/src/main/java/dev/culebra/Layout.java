package dev.culebra;

import dev.culebra.internal.DescriptorPool;
import java.util.Arrays;

/** Element type, extents, strides and place of a tensor in its memory; strides in elements, the offset in bytes. */
record Layout(DType dtype, long[] shape, long[] strides, long offset_bytes) {

    static Layout rowMajor(DType dtype, long... shape) {
        var extents = shape.clone();
        if (extents.length > DescriptorPool.MAX_RANK) {
            throw bad(dtype, extents, "has rank " + extents.length + "; the largest rank is "
                    + DescriptorPool.MAX_RANK);
        }
        var elements = 1L;
        var empty = false;
        for (var extent : extents) {
            if (extent < 0) {
                throw bad(dtype, extents, "has a negative extent");
            }
            empty |= extent == 0;
        }
        try {
            for (var extent : extents) {
                elements = Math.multiplyExact(elements, Math.max(extent, 1));
            }
            Math.multiplyExact(elements, dtype.bytes());
        } catch (ArithmeticException e) {
            throw bad(dtype, extents, empty ? "has strides of more than 2^63 bytes" : "has more than 2^63 bytes");
        }
        return new Layout(dtype, extents, compactStrides(extents), 0);
    }

    /** Refuses a tensor of so many elements that their bytes cannot be counted. */
    static void checkSize(DType dtype, long... shape) {
        rowMajor(dtype, shape);
    }

    private static ArgumentException bad(DType dtype, long[] shape, String fault) {
        return new ArgumentException(Status.SHAPE, null, null, "a tensor " + dtype + Arrays.toString(shape) + " "
                + fault);
    }

    static long[] compactStrides(long[] shape) {
        var strides = new long[shape.length];
        var stride = 1L;
        for (var d = shape.length - 1; d >= 0; d--) {
            strides[d] = stride;
            stride *= Math.max(shape[d], 1);
        }
        return strides;
    }

    int rank() {
        return shape.length;
    }

    long elements() {
        var elements = 1L;
        for (var extent : shape) {
            elements *= extent;
        }
        return elements;
    }

    long bytes() {
        return elements() * dtype.bytes();
    }

    /** From the first element to behind the last one in memory, -1 if beyond 2^63; strides are not negative. */
    long reachBytes() {
        if (elements() == 0) {
            return 0;
        }
        try {
            var last = 0L;
            for (var d = 0; d < shape.length; d++) {
                last = Math.addExact(last, Math.multiplyExact(shape[d] - 1, strides[d]));
            }
            return Math.multiplyExact(Math.addExact(last, 1), dtype.bytes());
        } catch (ArithmeticException e) {
            return -1;
        }
    }

    /** If the elements lie in row-major order without gaps. */
    boolean isContiguous() {
        var stride = 1L;
        for (var d = shape.length - 1; d >= 0; d--) {
            if (shape[d] == 0) {
                return true;
            }
            if (shape[d] != 1) {
                if (strides[d] != stride) {
                    return false;
                }
                stride *= shape[d];
            }
        }
        return true;
    }

    Layout at(long[] newShape, long[] newStrides, long addedElements) {
        return new Layout(dtype, newShape, newStrides, offset_bytes + addedElements * dtype.bytes());
    }

    /** {@code f32[2, 3]}. */
    @Override
    public String toString() {
        return dtype + Arrays.toString(shape);
    }
}
