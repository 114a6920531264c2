package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.conformance.Attributes;
import dev.culebra.conformance.HostTensor;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/** Inputs and attributes as a case has them, and the outputs that an oracle finds. */
public final class Problem {
    private final Map<String, HostTensor> inputs;
    private final Attributes attributes;
    private final Map<String, HostTensor> outputs = new LinkedHashMap<>();

    public Problem(Map<String, HostTensor> inputs, Attributes attributes) {
        this.inputs = inputs;
        this.attributes = attributes;
    }

    public Attributes attributes() {
        return attributes;
    }

    public Map<String, HostTensor> outputs() {
        return outputs;
    }

    boolean has(String name) {
        return inputs.containsKey(name);
    }

    HostTensor in(String name) {
        return inputs.get(name);
    }

    long[] shape(String name) {
        return in(name).shape();
    }

    int size(String name, int dimension) {
        return Math.toIntExact(in(name).size(dimension));
    }

    double[] values(String name) {
        return in(name).doubles();
    }

    /** The values, or as many equal ones where there is no such input. */
    double[] values(String name, int count, double absent) {
        if (has(name)) {
            return values(name);
        }
        var values = new double[count];
        Arrays.fill(values, absent);
        return values;
    }

    int[] ints(String name) {
        var values = new int[Math.toIntExact(in(name).elements())];
        Arrays.setAll(values, i -> Math.toIntExact(in(name).integer(i)));
        return values;
    }

    void out(String name, double[] values, long... shape) {
        out(name, DType.F32, values, shape);
    }

    void out(String name, DType dtype, double[] values, long... shape) {
        outputs.put(name, HostTensor.of(dtype, shape, values));
    }

    void out(String name, HostTensor value) {
        outputs.put(name, value);
    }

    void out(String name, int[] values, long... shape) {
        outputs.put(name, HostTensor.of(DType.I32, shape, Arrays.stream(values).asDoubleStream().toArray()));
    }
}
