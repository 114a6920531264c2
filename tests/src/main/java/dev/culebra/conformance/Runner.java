package dev.culebra.conformance;

import dev.culebra.ArgumentException;
import dev.culebra.CulebraException;
import dev.culebra.Device;
import dev.culebra.DeviceFailedException;
import dev.culebra.DeviceOptions;
import dev.culebra.Ops;
import dev.culebra.Plan;
import dev.culebra.Status;
import dev.culebra.UnsupportedException;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Runs cases on a device of its own. Each case is run with contiguous tensors twice, and with rows padded by a whole vector
 * and by one element; outputs and workspaces are poisoned, with another byte each time, and every tensor lies between guard
 * bands. Besides what the case compares, a run fails by a write outside of a tensor or to an input, by an element that is
 * not written, by bits that differ from run to run, by memory that is not given back.
 */
public final class Runner implements AutoCloseable {
    private static final Call.Layout CONTIGUOUS = new Call.Layout(0, 0xFF);
    private static final Call.Layout AGAIN = new Call.Layout(0, 0xA5);
    private static final List<Call.Layout> PADDED = List.of(new Call.Layout(16, 0xA5), new Call.Layout(1, 0xFF));
    private static final int FAULTS_TOLD = 4;

    private final String name;
    private final DeviceOptions options;
    private final Map<String, Binding> bindings;
    private final Set<String> supported;
    private Device device;

    /**
     * On a device by its name, {@code "cpu"} for one.
     *
     * @throws CulebraException if there is no such device here
     */
    public Runner(String name) {
        this(name, DeviceOptions.DEFAULT, Bindings.ALL);
    }

    /** With other bindings, and options to which poison is added. */
    public Runner(String name, DeviceOptions options, Map<String, Binding> bindings) {
        this.name = name;
        this.options = options.withPoison(true);
        this.bindings = bindings;
        this.device = Device.open(name, this.options);
        var backend = device.backend();
        this.supported = Ops.list().stream()
                .filter(op -> op.backends().contains(backend))
                .map(op -> op.name())
                .collect(Collectors.toUnmodifiableSet());
    }

    /** The device. */
    public Device device() {
        return device;
    }

    /** Reads a case and runs it. */
    public CaseResult run(Path path) {
        try {
            return run(Case.read(path));
        } catch (CaseException e) {
            return new CaseResult(path, "", Verdict.ERROR, Map.of(), String.valueOf(e.getMessage()), 0);
        }
    }

    /** Runs a case. */
    public CaseResult run(Case source) {
        var begin = System.nanoTime();
        var outputs = new LinkedHashMap<String, Comparison>();
        var faults = new ArrayList<String>();
        Verdict verdict;
        if (!supported.contains(source.op())) {
            return new CaseResult(source.path(), source.op(), Verdict.UNSUPPORTED, Map.of(),
                    device.backend() + " has no operator " + source.op(), 0);
        }
        var before = device.memory().statistics().liveAllocations();
        try {
            var binding = binding(source.op());
            if (source.expectError() == null) {
                compare(source, binding, outputs, faults);
            } else {
                refuse(source, binding, faults);
            }
            var left = device.memory().statistics().liveAllocations() - before;
            if (left != 0) {
                faults.add(left + " allocations were not given back");
            }
            verdict = faults.isEmpty() ? Verdict.PASS : Verdict.FAIL;
        } catch (UnsupportedException e) {
            verdict = Verdict.UNSUPPORTED;
            faults.add(0, e.getMessage());
        } catch (ArgumentException e) {
            verdict = Verdict.FAIL;
            faults.add(0, "refused with " + e.status() + ": " + e.getMessage());
        } catch (DeviceFailedException e) {
            verdict = Verdict.FAIL;
            faults.add(0, e.getMessage());
            reopen();
        } catch (CaseException | RuntimeException | OutOfMemoryError e) {  // of sizes that the case makes up
            verdict = Verdict.ERROR;
            faults.add(0, e instanceof CulebraException || e instanceof CaseException || e instanceof Refusal
                    ? e.getMessage() : e.toString());
        }
        return new CaseResult(source.path(), source.op(), verdict, outputs, told(faults), System.nanoTime() - begin);
    }

    private Binding binding(String op) throws CaseException {
        var binding = bindings.get(op);
        if (binding == null) {
            throw new CaseException("the runner has no binding for the operator " + op);
        }
        return binding;
    }

    /**
     * The outputs of one run with contiguous tensors, without a comparison.
     *
     * @throws CaseException if the runner has no binding for the operator
     */
    public Map<String, HostTensor> results(Case source) throws CaseException {
        return once(source, binding(source.op()), CONTIGUOUS, Map.of(), new LinkedHashMap<>(), new ArrayList<>());
    }

    /**
     * How the operator of a case would run here, with contiguous tensors; nothing runs.
     *
     * @throws CaseException if the runner has no binding for the operator, or Java's types exclude the case
     * @throws CulebraException if the operator refuses the case, or the backend lacks it
     */
    public Plan plan(Case source) throws CaseException {
        var binding = binding(source.op());
        try (var stream = device.openStream(); var scope = device.openScope()) {
            var call = new Call(source, stream, scope, CONTIGUOUS, Map.of());
            stream.batchInvariant(call.attributes().flag("batch_invariant", false));
            return stream.plan(() -> binding.run(call));
        } catch (Refusal e) {
            throw new CaseException("Java's types exclude it with " + e.status + ": " + e.getMessage());
        }
    }

    private void compare(Case source, Binding binding, Map<String, Comparison> outputs, List<String> faults)
            throws CaseException {
        var first = once(source, binding, CONTIGUOUS, Map.of(), outputs, faults);
        var second = once(source, binding, AGAIN, Map.of(), outputs, faults);
        first.forEach((output, value) -> {
            var difference = difference(value, second.get(output));
            if (difference != null) {
                faults.add(output + " " + difference);
            }
        });
        for (var layout : PADDED) {
            once(source, binding, layout, Map.of(), outputs, faults);
        }
        if (source.continues() != null && faults.isEmpty()) {
            var beginning = Case.read(source.continues());
            var states = once(beginning, binding(beginning.op()), CONTIGUOUS, Map.of(), new LinkedHashMap<>(), faults);
            once(source, binding, CONTIGUOUS, handedOver(states, source), outputs, faults);
        }
    }

    /** The first call's final states by the names of the second one's inputs: final_state becomes initial_state or state. */
    private static Map<String, HostTensor> handedOver(Map<String, HostTensor> results, Case next) throws CaseException {
        var states = new LinkedHashMap<String, HostTensor>();
        results.forEach((output, value) -> {
            var state = output.startsWith("final_") ? output.substring("final_".length()) : output;
            for (var input : List.of("initial_" + state, state)) {
                if (state.contains("state") && next.inputs().containsKey(input)) {
                    states.put(input, value);
                }
            }
        });
        if (states.isEmpty()) {
            throw new CaseException("no final state of " + next.continues() + " is an input here");
        }
        return states;
    }

    private Map<String, HostTensor> once(
            Case source,
            Binding binding,
            Call.Layout layout,
            Map<String, HostTensor> replaced,
            Map<String, Comparison> outputs,
            List<String> faults)
            throws CaseException {
        try (var stream = device.openStream(); var scope = device.openScope()) {
            var call = new Call(source, stream, scope, layout, replaced);
            stream.batchInvariant(call.attributes().flag("batch_invariant", false));
            binding.run(call);
            stream.synchronize();
            faults.addAll(call.faults());
            if (!call.ignored().isEmpty()) {
                throw new CaseException("the runner has no use for " + String.join(", ", call.ignored()) + " of " + source.op());
            }
            var results = call.results();
            for (var reference : source.outputs().entrySet()) {
                var output = reference.getKey();
                var result = results.get(output);
                if (result == null) {
                    throw new CaseException("the runner gets no output " + output + " from " + source.op());
                }
                var comparison = Metric.compare(result, reference.getValue(), source.checks().get(output));
                outputs.merge(output, comparison, Comparison::or);
                if (comparison.fault() != null) {
                    faults.add(output + " " + comparison.fault() + inWords(layout));
                }
                for (var rows : source.exactRows().getOrDefault(output, List.of())) {
                    var fault = Metric.compareExactly(result, reference.getValue(), rows);
                    if (fault != null) {
                        faults.add(output + " " + fault + inWords(layout));
                    }
                }
            }
            return results;
        }
    }

    private static String inWords(Call.Layout layout) {
        return layout.paddingBytes() == 0 ? "" : " (rows padded by at least " + layout.paddingBytes() + " bytes)";
    }

    /** What differs between the two contiguous runs, whose outputs began as different bytes. */
    private static @Nullable String difference(HostTensor first, @Nullable HostTensor second) {
        if (second == null || first.sameBits(second)) {
            return second == null ? "was an output of the first run alone" : null;
        }
        var size = first.dtype().bytes();
        var at = first.data().mismatch(second.data()) / size;
        var unwritten = true;
        for (var i = at * size; i < (at + 1) * size; i++) {
            unwritten &= (first.data().get(ValueLayout.JAVA_BYTE, i) & 0xFF) == CONTIGUOUS.poison()
                    && (second.data().get(ValueLayout.JAVA_BYTE, i) & 0xFF) == AGAIN.poison();
        }
        return (unwritten ? "is not written at " : "differs from run to run at ") + Metric.position(first.shape(), at);
    }

    private void refuse(Case source, Binding binding, List<String> faults) {
        for (var layout : List.of(CONTIGUOUS, AGAIN)) {
            try (var stream = device.openStream(); var scope = device.openScope()) {
                var call = new Call(source, stream, scope, layout, Map.of());
                try {
                    binding.run(call);
                    stream.synchronize();
                    faults.add("was accepted, but must be refused with " + source.expectError());
                } catch (DeviceFailedException e) {
                    throw e;
                } catch (CulebraException e) {
                    stream.synchronize();
                    if (e instanceof UnsupportedException missing && e.status() == Status.ARCH) {
                        throw missing;
                    }
                    if (e.status() != source.expectError()) {
                        faults.add("refused with " + e.status() + " instead of " + source.expectError() + ": " + e.getMessage());
                    }
                } catch (Refusal e) {
                    if (e.status != source.expectError()) {
                        faults.add("Java's types exclude it with " + e.status + " instead of " + source.expectError() + ": "
                                + e.getMessage());
                    }
                }
                faults.addAll(call.writes());
            }
            if (!faults.isEmpty()) {
                return;
            }
        }
    }

    private static String told(List<String> faults) {
        var distinct = faults.stream().distinct().toList();
        var text = distinct.stream().limit(FAULTS_TOLD).collect(Collectors.joining("; "));
        return distinct.size() <= FAULTS_TOLD ? text : text + "; and " + (distinct.size() - FAULTS_TOLD) + " more";
    }

    /** A device that failed stays failed. */
    private void reopen() {
        try {
            device.close();
        } catch (CulebraException e) {
            // It failed; that is known.
        }
        device = Device.open(name, options);
    }

    @Override
    public void close() {
        device.close();
    }
}
