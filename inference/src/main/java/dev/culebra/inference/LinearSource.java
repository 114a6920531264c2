package dev.culebra.inference;

import dev.culebra.CheckpointWeights;
import dev.culebra.DType;
import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Where a {@link Linear} comes from: rows of dense or quantized matrices. Matrices over the same input become one, so that
 * a step makes few calls, and rows get the order in which the operators want their results. Only neighbours that are stored
 * alike can become one: dense ones, or quantized ones with one order of k; the others are stacked.
 */
final class LinearSource {
    private final Checkpoint checkpoint;
    private final ModelConfig.@Nullable Quantization quantization;
    private final long inputs;
    private final List<Rows> rows;

    LinearSource(Checkpoint checkpoint, ModelConfig.@Nullable Quantization quantization, long inputs, List<Rows> rows) {
        this.checkpoint = checkpoint;
        this.quantization = quantization;
        this.inputs = inputs;
        this.rows = rows;
        for (var range : rows) {
            if (!Gptq.has(checkpoint, range.name())) {
                checkpoint.check(range.name() + ".weight", new long[] {range.count(), inputs}, Weights.FLOATS);
                continue;
            }
            Gptq.check(checkpoint, quantization, range.name(), range.count(), inputs);
            if (range.from() % Gptq.PER_WORD != 0 || range.to() % Gptq.PER_WORD != 0) {
                throw checkpoint.error(range.name() + ".qweight", "is to be cut at rows " + range.from() + " and " + range.to()
                        + ", which are not multiples of " + Gptq.PER_WORD);
            }
        }
    }

    /** What it takes on the device. */
    long bytes() {
        var bytes = 0L;
        for (var range : rows) {
            bytes += quantization != null && Gptq.has(checkpoint, range.name())
                    ? range.size() * (inputs / 2 + Gptq.groups(quantization.groupSize(), inputs) * DType.F16.bytes())
                    : range.size() * inputs * Precision.STREAM.bytes();
        }
        return bytes;
    }

    /** Rows that become one matrix. */
    private record Run(boolean quantized, int @Nullable [] order, List<Rows> rows) {}

    Linear load(Stream stream, Scope scope) {
        var parts = new ArrayList<Linear>();
        for (var run : runs(stream, scope)) {
            parts.add(run.quantized
                    ? packed(stream, scope, run.rows, Objects.requireNonNull(quantization))
                    : dense(stream, scope, run.rows));
        }
        return parts.size() == 1 ? parts.getFirst() : new Linear.Stacked(parts);
    }

    private List<Run> runs(Stream stream, Scope scope) {
        var orders = new LinkedHashMap<String, int @Nullable []>();
        try (var reading = scope.device().openScope()) {
            for (var range : rows) {
                var name = range.name();
                if (quantization != null && Gptq.has(checkpoint, name) && !orders.containsKey(name)) {
                    orders.put(name, Gptq.reordered(checkpoint, stream, reading, name, quantization.groupSize()));
                }
            }
        }
        var runs = new ArrayList<Run>();
        for (var range : rows) {
            var quantized = Gptq.has(checkpoint, range.name());
            var order = orders.get(range.name());
            var last = runs.isEmpty() ? null : runs.getLast();
            if (last == null || last.quantized != quantized || !Arrays.equals(last.order, order)) {
                last = new Run(quantized, order, new ArrayList<>());
                runs.add(last);
            }
            last.rows.add(range);
        }
        return runs;
    }

    private Linear dense(Stream stream, Scope scope, List<Rows> ranges) {
        var weight = scope.allocate(Precision.STREAM, Rows.size(ranges), inputs);
        try (var reading = scope.device().openScope()) {
            var to = 0L;
            for (var range : ranges) {
                var source = checkpoint.load(stream, reading, range.name() + ".weight").slice(0, range.from(), range.to());
                try (var target = weight.slice(0, to, to += range.size())) {
                    Ops.cast(stream, source, target);
                }
            }
        }
        return new Linear.Dense(weight);
    }

    private Linear packed(Stream stream, Scope scope, List<Rows> ranges, ModelConfig.Quantization config) {
        try (var reading = scope.device().openScope()) {
            var index = ranges.getFirst().name() + ".g_idx";
            var weights = CheckpointWeights.of(
                    Gptq.format(config),
                    4,
                    config.groupSize(),
                    columns(stream, reading, ranges, ".qweight", 1),
                    columns(stream, reading, ranges, ".scales", 1),
                    columns(stream, reading, ranges, ".qzeros", Gptq.PER_WORD),
                    checkpoint.contains(index) ? checkpoint.load(stream, reading, index) : null);
            return new Linear.Packed(Ops.packWeights(stream, scope, weights));
        }
    }

    /** Columns of a GPTQ tensor, which hold the matrix's rows, {@code perColumn} each, side by side. */
    private Tensor columns(Stream stream, Scope reading, List<Rows> ranges, String suffix, long perColumn) {
        var first = checkpoint.load(stream, reading, ranges.getFirst().name() + suffix);
        var joined = reading.allocate(first.dtype(), first.size(0), Rows.size(ranges) / perColumn);
        var to = 0L;
        for (var range : ranges) {
            var source = checkpoint.load(stream, reading, range.name() + suffix);
            Ops.copyStrided(
                    stream,
                    source.slice(1, range.from() / perColumn, range.to() / perColumn),
                    joined.slice(1, to, to += range.size() / perColumn));
        }
        return joined;
    }
}
