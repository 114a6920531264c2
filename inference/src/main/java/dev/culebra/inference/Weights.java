package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.Device;
import dev.culebra.ExpertWeights;
import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * What a model asks of its checkpoint. Layers declare their weights: names, shapes and types are checked at once, and
 * the bytes that they will take are summed. Nothing is read or allocated before {@link #load}.
 */
final class Weights {
    /** Of weights that are not quantized. */
    static final DType[] FLOATS = {DType.BF16, DType.F16, DType.F32};

    /** A declared weight: there once the weights are loaded. */
    static final class Weight<T> {
        private final long bytes;
        private final Loader<T> loader;
        private Optional<T> value = Optional.empty();

        private Weight(long bytes, Loader<T> loader) {
            this.bytes = bytes;
            this.loader = loader;
        }

        T get() {
            return value.orElseThrow(() -> new IllegalStateException("the weights were not loaded"));
        }

        private void load(Stream stream, Scope scope) {
            value = Optional.of(loader.load(stream, scope));
        }
    }

    /** Makes a weight in the scope. */
    @FunctionalInterface
    interface Loader<T> {
        T load(Stream stream, Scope scope);
    }

    private final Checkpoint checkpoint;
    private final ModelConfig.@Nullable Quantization quantization;
    private final List<Weight<?>> weights = new ArrayList<>();

    Weights(Checkpoint checkpoint, ModelConfig.@Nullable Quantization quantization) {
        this.checkpoint = checkpoint;
        this.quantization = quantization;
    }

    /** A small tensor in the stream's type; {@code shape} may leave out extents of 1. */
    Weight<Tensor> tensor(String name, long[] stored, long... shape) {
        checkpoint.check(name, stored, FLOATS);
        return declare(elements(shape) * Precision.STREAM.bytes(), (stream, scope) -> {
            var tensor = scope.allocate(Precision.STREAM, shape);
            try (var reading = scope.device().openScope()) {
                Ops.cast(stream, checkpoint.load(stream, reading, name).reshape(shape), tensor);
            }
            return tensor;
        });
    }

    /** A vector in the stream's type. */
    Weight<Tensor> vector(String name, long size) {
        return tensor(name, new long[] {size}, size);
    }

    /** A vector to which 1 is added. */
    Weight<Tensor> vectorPlusOne(String name, long size) {
        checkpoint.check(name, new long[] {size}, FLOATS);
        return declare(size * Precision.STREAM.bytes(), (stream, scope) -> {
            try (var reading = scope.device().openScope()) {
                var values = checkpoint.load(stream, reading, name).floats(stream);
                for (var i = 0; i < values.length; i++) {
                    values[i] += 1;
                }
                return scope.floats(stream, values, size);
            }
        });
    }

    /** A constant: ones. */
    Weight<Tensor> ones(long... shape) {
        var ones = new float[Math.toIntExact(elements(shape))];
        Arrays.fill(ones, 1);
        return declare(ones.length * (long) Precision.STREAM.bytes(), (stream, scope) -> scope.floats(stream, ones, shape));
    }

    /** A table in the type that it is stored in: its rows are looked up, not multiplied. */
    Weight<Tensor> table(String name, long rows, long columns) {
        checkpoint.check(name, new long[] {rows, columns}, FLOATS);
        var dtype = checkpoint.dtype(name);
        return declare(rows * columns * dtype.bytes(), (stream, scope) -> {
            var table = scope.allocate(dtype, rows, columns);
            try (var reading = scope.device().openScope()) {
                table.copyFrom(stream, checkpoint.load(stream, reading, name));
            }
            return table;
        });
    }

    /** A matrix over {@code inputs} channels, made of rows of named ones in the order given. */
    Weight<Linear> linear(long inputs, List<Rows> rows) {
        var source = new LinearSource(checkpoint, quantization, inputs, rows);
        return declare(source.bytes(), source::load);
    }

    /** A matrix as it is named. */
    Weight<Linear> linear(String name, long outputs, long inputs) {
        return linear(inputs, List.of(Rows.all(name, outputs)));
    }

    /** The experts of a layer, in any of the ways that {@link ExpertSource} reads. */
    Weight<ExpertWeights> experts(String prefix, ModelConfig.Experts experts, long hidden) {
        var source = new ExpertSource(checkpoint, quantization, prefix, experts, hidden);
        return declare(source.bytes(), source::load);
    }

    private <T> Weight<T> declare(long bytes, Loader<T> loader) {
        var weight = new Weight<>(bytes, loader);
        weights.add(weight);
        return weight;
    }

    private static long elements(long... shape) {
        var product = 1L;
        for (var extent : shape) {
            product *= extent;
        }
        return product;
    }

    /** What all of them take on the device. */
    long bytes() {
        return weights.stream().mapToLong(weight -> weight.bytes).sum();
    }

    /** Loads all of them, and waits. */
    void load(Device device, Scope scope, LoadProgress progress) {
        var total = bytes();
        var done = 0L;
        try (var stream = device.openStream()) {
            for (var weight : weights) {
                progress.update(done, total);
                weight.load(stream, scope);
                done += weight.bytes;
            }
            stream.synchronize();
        }
        progress.update(total, total);
    }
}
