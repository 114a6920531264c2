package dev.culebra.conformance;

import java.util.Arrays;
import java.util.HashSet;
import java.util.Locale;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** How far a result is from its reference. */
public enum Metric {
    /** {@code rms(out - ref) / rms(ref)} over the finite positions; {@code rms(out)} where {@code rms(ref)} is 0. */
    RMS_RATIO {
        @Override
        double measure(HostTensor out, HostTensor ref) {
            var error = 0.0;
            var size = 0.0;
            var count = 0L;
            for (var i = 0L; i < ref.elements(); i++) {
                var expected = ref.get(i);
                if (Double.isFinite(expected)) {
                    var difference = out.get(i) - expected;
                    error += difference * difference;
                    size += expected * expected;
                    count++;
                }
            }
            if (count == 0) {
                return 0;
            }
            return size == 0 ? Math.sqrt(error / count) : Math.sqrt(error / size);
        }
    },
    /** The largest difference over the finite positions. */
    MAX_ABS {
        @Override
        double measure(HostTensor out, HostTensor ref) {
            var largest = 0.0;
            for (var i = 0L; i < ref.elements(); i++) {
                var expected = ref.get(i);
                if (Double.isFinite(expected)) {
                    largest = Math.max(largest, Math.abs(out.get(i) - expected));
                }
            }
            return largest;
        }
    },
    /** The number of elements that differ. */
    EXACT {
        @Override
        double measure(HostTensor out, HostTensor ref) {
            var differing = 0L;
            for (var i = 0L; i < ref.elements(); i++) {
                differing += same(out, ref, i) ? 0 : 1;
            }
            return differing;
        }
    },
    /** The number of rows, along the last dimension, whose sets of non-negative entries differ. */
    ROW_SET {
        @Override
        double measure(HostTensor out, HostTensor ref) {
            var width = ref.size(-1);
            var differing = 0L;
            for (var row = 0L; width > 0 && row < ref.elements() / width; row++) {
                var actual = entries(out, row, width);
                // A set that holds an entry twice is not written as one.
                differing += actual != null && actual.equals(entries(ref, row, width)) ? 0 : 1;
            }
            return differing;
        }

        private @Nullable Set<Long> entries(HostTensor tensor, long row, long width) {
            var set = new HashSet<Long>();
            for (var i = row * width; i < (row + 1) * width; i++) {
                if (tensor.integer(i) >= 0 && !set.add(tensor.integer(i))) {
                    return null;
                }
            }
            return set;
        }
    },
    /** Not compared: given for information. */
    NONE {
        @Override
        double measure(HostTensor out, HostTensor ref) {
            return 0;
        }
    };

    abstract double measure(HostTensor out, HostTensor ref);

    static Metric named(String name) throws CaseException {
        return Arrays.stream(values())
                .filter(metric -> metric.toString().equals(name))
                .findFirst()
                .orElseThrow(() -> new CaseException("there is no metric " + name));
    }

    /** {@code rms_ratio}, ... */
    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }

    /**
     * Compares a result with its reference: the metric, and NaN and infinities at the same positions.
     *
     * @param out of any type; the reference is stored in f32 or the integer type
     */
    public static Comparison compare(HostTensor out, HostTensor ref, Check check) {
        if (!Arrays.equals(out.shape(), ref.shape())) {
            return new Comparison(check, Double.NaN, "has shape " + Arrays.toString(out.shape()) + " instead of "
                    + Arrays.toString(ref.shape()));
        }
        if (check.metric() == NONE) {
            return new Comparison(check, 0, null);
        }
        for (var i = 0L; i < ref.elements(); i++) {
            var expected = ref.get(i);
            var actual = out.get(i);
            if ((!Double.isFinite(expected) || !Double.isFinite(actual)) && Double.compare(expected, actual) != 0) {
                return new Comparison(check, Double.NaN, "is " + actual + " at " + position(ref.shape(), i)
                        + ", where the reference is " + expected);
            }
        }
        var value = check.metric().measure(out, ref);
        if (value <= check.bound()) {
            return new Comparison(check, value, null);
        }
        return new Comparison(check, value, String.format(Locale.ROOT, "has %s %.4g, above %.4g; %s",
                check.metric(), value, check.bound(), worst(out, ref)));
    }

    /** What differs within the part of {@code out} at these leading indices, bit for bit; null if nothing does. */
    static @Nullable String compareExactly(HostTensor out, HostTensor ref, long[] leading) {
        var row = 0L;
        for (var d = 0; d < leading.length; d++) {
            row = row * ref.shape()[d] + leading[d];
        }
        var width = HostTensor.elements(Arrays.copyOfRange(ref.shape(), leading.length, ref.shape().length));
        for (var i = row * width; i < (row + 1) * width; i++) {
            if (!same(out, ref, i)) {
                return "is " + out.get(i) + " at " + position(ref.shape(), i) + ", where it must be exactly " + ref.get(i);
            }
        }
        return null;
    }

    private static boolean same(HostTensor out, HostTensor ref, long i) {
        return ref.dtype().isFloat() ? out.get(i) == ref.get(i) || Double.compare(out.get(i), ref.get(i)) == 0
                : out.integer(i) == ref.integer(i);
    }

    private static String worst(HostTensor out, HostTensor ref) {
        var at = 0L;
        var largest = -1.0;
        for (var i = 0L; i < ref.elements(); i++) {
            var difference = Math.abs(out.get(i) - ref.get(i));
            if (difference > largest) {
                largest = difference;
                at = i;
            }
        }
        return "farthest off at " + position(ref.shape(), at) + ": " + out.get(at) + " instead of " + ref.get(at);
    }

    /** The indices of element {@code i} in row-major order. */
    static String position(long[] shape, long i) {
        var indices = new long[shape.length];
        for (var d = shape.length - 1; d >= 0; d--) {
            indices[d] = i % shape[d];
            i /= shape[d];
        }
        return Arrays.toString(indices);
    }
}
