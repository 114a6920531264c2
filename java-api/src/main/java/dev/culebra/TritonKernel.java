package dev.culebra;

import dev.culebra.io.FormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Objects;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * A kernel that Triton compiled ahead of time, in one or more variants: for several architectures, element types, block
 * sizes, or with and without the assumption that addresses and strides are divisible by 16. Of no device and immutable;
 * {@link #prepare} makes a call of it on one. How to compile one: {@code docs/triton.md}.
 */
public final class TritonKernel {
    private final String name;
    private final Path origin;
    private final List<TritonVariant> variants;

    private TritonKernel(String name, Path origin, List<TritonVariant> variants) {
        this.name = name;
        this.origin = origin;
        this.variants = variants;
    }

    /**
     * Reads a folder with the variants of one kernel, or the one variant that a file in it belongs to. A variant is three
     * files of one stem: Triton's image ({@code .cubin} or {@code .ptx}), Triton's metadata ({@code .json}), and the
     * names and types of the parameters ({@code .signature.json}), which the metadata lacks.
     *
     * @throws FormatException if a file is missing, lacks a field or contradicts another
     * @throws IOException if a file cannot be read
     */
    public static TritonKernel load(Path path) throws IOException {
        var variants = new ArrayList<TritonVariant>();
        for (var stem : stems(path)) {
            variants.add(TritonVariant.read(stem));
        }
        if (variants.isEmpty()) {
            throw new FormatException(path, "there is no *" + TritonVariant.SIGNATURE + " in it");
        }
        // The most specialized first: the first that an argument list fits is taken. A cubin needs no compiler at run time.
        variants.sort(Comparator.comparingLong(TritonVariant::hints).reversed()
                .thenComparing(TritonVariant::isPtx)
                .thenComparing(Comparator.comparingInt(TritonVariant::capability).reversed())
                .thenComparing(TritonVariant::file));
        var first = variants.getFirst();
        for (var variant : variants) {
            if (!variant.kernel().equals(first.kernel())) {
                throw new FormatException(path, "it holds two kernels, " + first.kernel() + " (" + first.file() + ") and "
                        + variant.kernel() + " (" + variant.file() + "); load them from folders of their own");
            }
            if (!names(variant).equals(names(first))) {
                throw new FormatException(path, "the parameters of " + variant.file() + " are " + names(variant)
                        + " but those of " + first.file() + " are " + names(first));
            }
        }
        return new TritonKernel(first.kernel(), path, List.copyOf(variants));
    }

    private static List<Path> stems(Path path) throws IOException {
        if (!Files.isDirectory(path)) {
            var file = String.valueOf(path.getFileName());
            for (var suffix : List.of(TritonVariant.SIGNATURE, TritonVariant.METADATA, ".cubin", ".ptx")) {
                if (file.endsWith(suffix)) {
                    return List.of(path.resolveSibling(file.substring(0, file.length() - suffix.length())));
                }
            }
            return List.of(path);
        }
        try (var files = Files.list(path)) {
            return files.map(file -> String.valueOf(file.getFileName()))
                    .filter(file -> file.endsWith(TritonVariant.SIGNATURE))
                    .sorted()
                    .map(file -> path.resolve(file.substring(0, file.length() - TritonVariant.SIGNATURE.length())))
                    .toList();
        }
    }

    private static List<String> names(TritonVariant variant) {
        return variant.parameters().stream().map(TritonVariant.Parameter::name).toList();
    }

    /** The kernel's name. */
    public String name() {
        return name;
    }

    /** The names of its parameters, constants included, in the order of the source. */
    public List<String> parameters() {
        return names(variants.getFirst());
    }

    /** What its variants were compiled for, as in {@code sm_80}. */
    public List<String> architectures() {
        return variants.stream().map(variant -> "sm_" + variant.capability()).distinct().sorted().toList();
    }

    /**
     * The variants whose constexpr {@code parameter} has that value.
     *
     * @throws ArgumentException if there is none
     */
    public TritonKernel with(String parameter, Object value) {
        var wanted = value instanceof Number number && !(value instanceof Double || value instanceof Float)
                ? (Object) number.longValue()
                : value;
        var left = variants.stream().filter(variant -> wanted.equals(constant(variant, parameter))).toList();
        if (left.isEmpty()) {
            throw failure(Status.RANGE, "no variant has the constexpr " + parameter + " = " + value + "; there are "
                    + values(parameter));
        }
        return new TritonKernel(name, origin, left);
    }

    /**
     * The value of an integer constexpr, a block size for one: grids are computed with it.
     *
     * @throws ArgumentException if there is no such constant, or variants differ in it; {@link #with} chooses
     */
    public int constant(String parameter) {
        var values = values(parameter);
        if (values.size() != 1 || !(values.getFirst() instanceof Long value)) {
            throw failure(Status.RANGE, "the integer constexpr " + parameter + " has not one value but " + values);
        }
        return Math.toIntExact(value);
    }

    private List<Object> values(String parameter) {
        return variants.stream().map(variant -> constant(variant, parameter)).filter(Objects::nonNull).distinct().toList();
    }

    private static @Nullable Object constant(TritonVariant variant, String parameter) {
        return variant.parameters().stream()
                .filter(each -> each.name().equals(parameter))
                .map(TritonVariant.Parameter::value)
                .filter(Objects::nonNull)
                .findFirst()
                .orElse(null);
    }

    /**
     * Loads the variants that run on {@code device} (once, however often it is asked for) and makes a call of the kernel,
     * whose arguments are yet to be set.
     *
     * @throws UnsupportedException if no variant is for the device's architecture, or all need more shared memory than it
     *     has; if the device is not of the cuda backend
     * @throws ArgumentException if variants differ in a constexpr ({@link #with} chooses), or an image does not declare the
     *     parameters of its signature
     */
    public TritonCall prepare(Device device) {
        var info = device.info();
        var right = variants.stream().filter(v -> v.runsOn(info.computeMajor(), info.computeMinor())).toList();
        if (right.isEmpty()) {
            throw failure(Status.ARCH, "compiled for " + String.join(", ", architectures()) + "; " + info.name() + ", "
                    + device + ", has compute capability " + info.computeMajor() + "." + info.computeMinor());
        }
        var fitting = right.stream().filter(v -> v.sharedBytes() <= info.sharedBytesPerBlock()).toList();
        if (fitting.isEmpty()) {
            throw failure(Status.UNSUPPORTED, right.stream()
                    .map(v -> v.file() + " needs " + v.sharedBytes() + " bytes of shared memory")
                    .collect(Collectors.joining(", ")) + "; a block on " + device + " has " + info.sharedBytesPerBlock());
        }
        for (var parameter : parameters()) {
            var values = fitting.stream().map(v -> constant(v, parameter)).distinct().toList();
            if (values.size() > 1 && !values.contains(null)) {
                throw failure(Status.RANGE, "variants differ in the constexpr " + parameter + ", which is one of " + values
                        + "; choose with with(\"" + parameter + "\", ...)");
            }
        }
        return TritonCall.prepare(this, device, fitting);
    }

    /** {@code Triton kernel softmax from native/triton/artefacts/softmax}. */
    @Override
    public String toString() {
        return "Triton kernel " + name + " from " + origin;
    }

    CulebraException failure(Status status, String text) {
        return CulebraException.of(status, name, null, name + ": " + text);
    }
}
