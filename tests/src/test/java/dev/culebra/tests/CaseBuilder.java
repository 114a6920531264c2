package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Attributes;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.Check;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import dev.culebra.io.TensorEntry;
import dev.culebra.oracles.Oracles;
import dev.culebra.oracles.Problem;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.IntUnaryOperator;
import java.util.stream.IntStream;

/** A case made up by a test: inputs from a seed, outputs from the oracle, bounds from the contract. */
public final class CaseBuilder {
    final Random random;
    private final String op;
    private final String note;
    private final Map<String, Object> attributes = new LinkedHashMap<>();
    private final Map<String, HostTensor> inputs = new LinkedHashMap<>();
    private final Map<String, Check> checks = new LinkedHashMap<>();

    public CaseBuilder(String op, long seed, Object... note) {
        this.op = op;
        this.random = new Random(seed);
        this.note = String.join(" ", Arrays.stream(note).map(String::valueOf).toList()) + " seed " + seed;
    }

    public CaseBuilder attribute(String name, Object value) {
        attributes.put(name, value instanceof Integer number ? (Object) number.longValue() : value);
        return this;
    }

    public CaseBuilder in(String name, HostTensor tensor) {
        inputs.put(name, tensor);
        return this;
    }

    public CaseBuilder all(Map<String, HostTensor> tensors) {
        inputs.putAll(tensors);
        return this;
    }

    /** Normally distributed numbers. */
    public CaseBuilder normal(String name, DType dtype, double deviation, long... shape) {
        return in(name, normal(random, dtype, deviation, shape));
    }

    static HostTensor normal(Random random, DType dtype, double deviation, long... shape) {
        var tensor = HostTensor.zeros(dtype, shape);
        for (var i = 0L; i < tensor.elements(); i++) {
            tensor.set(i, deviation * random.nextGaussian());
        }
        return tensor;
    }

    /** Numbers between two bounds. */
    public CaseBuilder uniform(String name, DType dtype, double from, double to, long... shape) {
        var tensor = HostTensor.zeros(dtype, shape);
        for (var i = 0L; i < tensor.elements(); i++) {
            tensor.set(i, from + (to - from) * random.nextDouble());
        }
        return in(name, tensor);
    }

    /** Each element one of {@code values}. */
    public CaseBuilder choice(String name, DType dtype, double[] values, long... shape) {
        var tensor = HostTensor.zeros(dtype, shape);
        for (var i = 0L; i < tensor.elements(); i++) {
            tensor.set(i, values[random.nextInt(values.length)]);
        }
        return in(name, tensor);
    }

    /** Integers from {@code from} to below {@code to}. */
    public CaseBuilder integers(String name, DType dtype, int from, int to, long... shape) {
        return in(name, HostTensor.of(dtype, shape,
                random.ints(HostTensor.elements(shape), from, to).asDoubleStream().toArray()));
    }

    /** Integers by their index. */
    public CaseBuilder ints(String name, DType dtype, int count, IntUnaryOperator value) {
        return in(name, HostTensor.of(dtype, new long[] {count},
                IntStream.range(0, count).map(value).asDoubleStream().toArray()));
    }

    /** What has been given so far. */
    Map<String, HostTensor> inputs() {
        return inputs;
    }

    Map<String, Object> attributes() {
        return attributes;
    }

    /** Sets an element of an input to NaN, which a result must show. */
    CaseBuilder nan(String name, long at) {
        inputs.get(name).set(at, Double.NaN);
        return this;
    }

    public CaseBuilder check(String output, Metric metric, double bound) {
        checks.put(output, new Check(metric, bound));
        return this;
    }

    /** The contract's bound on the RMS ratio of results of this type. */
    static double bound(DType dtype) {
        return switch (dtype) {
            case F32 -> 1e-5;
            case F16 -> 2e-3;
            case BF16 -> 5e-3;
            default -> 0;
        };
    }

    /** Float outputs without a check of their own get the bound of {@code dtype}, integers are exact. */
    public Case build(DType dtype) {
        var problem = new Problem(inputs, new Attributes(attributes));
        Oracles.ALL.get(op).solve(problem);
        return build(dtype, problem.outputs());
    }

    /** As {@link #build(DType)}, with these outputs. */
    public Case build(DType dtype, Map<String, HostTensor> outputs) {
        for (var output : outputs.entrySet()) {
            checks.putIfAbsent(output.getKey(), output.getValue().dtype().isFloat()
                    ? new Check(Metric.RMS_RATIO, bound(dtype)) : new Check(Metric.EXACT, 0));
        }
        var entries = new LinkedHashMap<String, TensorEntry>();
        var path = Path.of(op, note);
        inputs.forEach((name, tensor) -> entries.put(name, new TensorEntry("in." + name, tensor.dtype().safeTensorsName(),
                Arrays.stream(tensor.shape()).boxed().toList(), tensor.data(), path)));
        return new Case(path, op, note, attributes, entries, outputs, checks, Map.<String, List<long[]>>of(), null, null);
    }
}
