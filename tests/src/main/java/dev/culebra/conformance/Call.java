package dev.culebra.conformance;

import dev.culebra.DType;
import dev.culebra.Scope;
import dev.culebra.Status;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.io.TensorEntry;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** One call of an operator: its inputs uploaded, its outputs allocated, as a {@link Binding} asks for them. */
public final class Call {
    /** Padding of inputs: NaN in every float type. */
    private static final int CANARY = 0xFF;

    private final Case source;
    private final Attributes attributes;
    private final Stream stream;
    private final Scope scope;
    private final Layout layout;
    private final Map<String, HostTensor> replaced;

    private final Map<String, GuardedTensor> inputs = new LinkedHashMap<>();
    private final Map<String, GuardedTensor> outputs = new LinkedHashMap<>();
    private final Map<String, HostTensor> derived = new LinkedHashMap<>();
    private final Set<String> used = new HashSet<>();
    private final List<String> faults = new ArrayList<>();

    /**
     * How tensors lie in memory.
     *
     * @param paddingBytes behind each row of the first tensor, rounded up to an element; of the others a multiple of it
     * @param poison what outputs hold before the call
     */
    record Layout(int paddingBytes, int poison) {
        int elements(DType dtype) {
            return Math.ceilDiv(paddingBytes, dtype.bytes());
        }
    }

    Call(Case source, Stream stream, Scope scope, Layout layout, Map<String, HostTensor> replaced) {
        this.source = source;
        this.attributes = new Attributes(source.attributes());
        this.stream = stream;
        this.scope = scope;
        this.layout = layout;
        this.replaced = replaced;
    }

    /** Where the operator runs. */
    public Stream stream() {
        return stream;
    }

    /** The owner of what the call needs. */
    public Scope scope() {
        return scope;
    }

    /** The case's attributes. */
    public Attributes attributes() {
        return attributes;
    }

    /** If the case has this input. */
    public boolean has(String name) {
        used.add(name);
        return source.inputs().containsKey(name);
    }

    /** The input of this name on the device; null where the case has none, so that the operator itself refuses it. */
    public @Nullable Tensor in(String name) {
        return in(name, true);
    }

    /** As {@link #in(String)}, never padded: for what the operator documents to be contiguous. */
    public @Nullable Tensor compact(String name) {
        return in(name, false);
    }

    private @Nullable Tensor in(String name, boolean padded) {
        if (!has(name)) {
            return null;
        }
        var input = inputs.get(name);
        if (input == null) {
            var contents = host(name);
            var padding = padded ? padding(contents.dtype()) : 0;
            input = new GuardedTensor(stream, scope, name, contents, padding, CANARY);
            inputs.put(name, input);
        }
        return input.view();
    }

    /** More for each tensor than for the one before, so that one's stride in place of another's shows. */
    private int padding(DType dtype) {
        return layout.elements(dtype) * (1 + inputs.size() + outputs.size());
    }

    /** An input's elements on the host. */
    public HostTensor host(String name) {
        var replacement = replaced.get(name);
        if (replacement != null) {
            used.add(name);
            return replacement;
        }
        var entry = entry(name);
        if (entry == null) {
            throw new Refusal(Status.NULL_POINTER, name + " is absent");
        }
        var dtype = entry.dtype().orElseThrow(() -> new Refusal(Status.DTYPE, "no operator knows the type of " + entry));
        return new HostTensor(dtype, entry.extents(), entry.data());
    }

    /** One extent of an input; 1 where there is no such input or dimension: the operator finds out. */
    public long size(String name, int dimension) {
        var entry = entry(name);
        return entry == null || dimension >= entry.shape().size() ? 1 : entry.shape().get(dimension);
    }

    /** The shape of an input; empty where there is none. */
    public long[] shape(String name) {
        var entry = entry(name);
        return entry == null ? new long[0] : entry.extents();
    }

    /** The type of an input; F32 where there is none. */
    public DType dtype(String name) {
        var entry = entry(name);
        return entry == null ? DType.F32 : entry.dtype().orElse(DType.F32);
    }

    private @Nullable TensorEntry entry(String name) {
        used.add(name);
        return source.inputs().get(name);
    }

    /** If the case asks for this output. One that expects a refusal asks for all of them. */
    public boolean wants(String name) {
        return source.expectError() != null || source.outputs().containsKey(name);
    }

    /** An output full of poison; of the reference's shape, where there is one. */
    public Tensor out(String name, DType dtype, long... shape) {
        var reference = source.outputs().get(name);
        var extents = reference == null ? shape : reference.shape();
        var output = new GuardedTensor(stream, scope, name, dtype, extents, padding(dtype), layout.poison());
        outputs.put(name, output);
        return output.view();
    }

    /** As {@link #out}, but full of zeros: an operator that leaves some of its elements as they are. */
    public Tensor zeros(String name, DType dtype, long... shape) {
        var reference = source.outputs().get(name);
        var contents = HostTensor.zeros(dtype, reference == null ? shape : reference.shape());
        var output = new GuardedTensor(stream, scope, name, contents, padding(dtype), CANARY);
        outputs.put(name, output);
        return output.view();
    }

    /** As {@link #out}; null where the case does not ask for it. */
    public @Nullable Tensor optionalOut(String name, DType dtype, long... shape) {
        return wants(name) ? out(name, dtype, shape) : null;
    }

    /** An output that starts as the input {@code initial}; null where there is no such input. */
    public @Nullable Tensor updated(String name, String initial) {
        if (!has(initial)) {
            return null;
        }
        var contents = host(initial);
        var padding = padding(contents.dtype());
        var output = new GuardedTensor(stream, scope, name, contents, padding, CANARY);
        outputs.put(name, output);
        return output.view();
    }

    /** An output that the case has been given, computed on the host from what the operator wrote. */
    public void derive(String name, HostTensor value) {
        derived.put(name, value);
    }

    /** What an output holds now. */
    public HostTensor read(String name) {
        return output(name).read(stream);
    }

    GuardedTensor output(String name) {
        return outputs.get(name);
    }

    /** Something that is wrong beyond the comparison of outputs. */
    public void fault(String message) {
        faults.add(message);
    }

    // ------------------------------------------------------------------------------------------ what the runner looks at

    Map<String, HostTensor> results() {
        var results = new LinkedHashMap<String, HostTensor>();
        outputs.forEach((name, output) -> results.put(name, output.read(stream)));
        results.putAll(derived);
        return results;
    }

    /** Stray writes, and what the binding found. */
    List<String> faults() {
        for (var output : outputs.values()) {
            add(output.strayWrite(stream));
        }
        for (var input : inputs.values()) {
            add(input.anyWrite(stream));
        }
        return faults;
    }

    /** Writes of a call that was refused. */
    List<String> writes() {
        outputs.values().forEach(output -> add(output.anyWrite(stream)));
        inputs.values().forEach(input -> add(input.anyWrite(stream)));
        return faults;
    }

    private void add(@Nullable String fault) {
        if (fault != null) {
            faults.add(fault);
        }
    }

    /** Inputs and attributes that the binding did not look at. */
    List<String> ignored() {
        var ignored = new ArrayList<String>();
        source.inputs().keySet().stream().filter(name -> !used.contains(name)).map(name -> "in." + name).forEach(ignored::add);
        ignored.addAll(attributes.unread());
        return ignored;
    }
}
