package dev.culebra.conformance;

import dev.culebra.Status;
import dev.culebra.io.SafeTensors;
import dev.culebra.io.TensorEntry;
import java.io.IOException;
import java.nio.file.InvalidPathException;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * One conformance case.
 *
 * @param path its file
 * @param op the operator
 * @param note what it stresses
 * @param attributes as the file has them
 * @param inputs the tensors {@code in.*}, without the prefix
 * @param outputs the tensors {@code out.*}, without the prefix
 * @param checks how each output is compared
 * @param exactRows parts of outputs, as leading indices, that must equal the reference bit for bit
 * @param continues the case whose final states this one starts from, or null
 * @param expectError the refusal that is expected, or null
 */
public record Case(
        Path path,
        String op,
        String note,
        Map<String, Object> attributes,
        Map<String, TensorEntry> inputs,
        Map<String, HostTensor> outputs,
        Map<String, Check> checks,
        Map<String, List<long[]>> exactRows,
        @Nullable Path continues,
        @Nullable Status expectError) {

    /**
     * Reads a case.
     *
     * @throws CaseException if the file is missing, damaged or no case
     */
    public static Case read(Path path) throws CaseException {
        try {
            return parse(path, SafeTensors.open(path));
        } catch (NoSuchFileException e) {
            throw new CaseException("there is no file " + path, e);
        } catch (IOException e) {
            throw new CaseException(String.valueOf(e.getMessage()), e);
        } catch (ClassCastException | InvalidPathException e) {
            throw new CaseException("the metadata are no case's: " + e.getMessage(), e);
        }
    }

    private static Case parse(Path path, SafeTensors file) throws CaseException {
        var metadata = file.metadata();
        var op = metadata.get("op");
        if (op == null) {
            throw new CaseException("the metadata name no op: this is no conformance case");
        }
        var inputs = new LinkedHashMap<String, TensorEntry>();
        var outputs = new LinkedHashMap<String, HostTensor>();
        for (var entry : file.entries()) {
            if (entry.name().startsWith("in.")) {
                inputs.put(entry.name().substring(3), entry);
            } else if (entry.name().startsWith("out.")) {
                var dtype = entry.dtype().orElseThrow(() -> new CaseException(entry + ": unknown element type"));
                outputs.put(entry.name().substring(4), new HostTensor(dtype, entry.extents(), entry.data()));
            } else {
                throw new CaseException("tensor " + entry.name() + " is neither in.* nor out.*");
            }
        }
        var expected = metadata.get("expect_error");
        var checks = checks(metadata.getOrDefault("check", "{}"));
        if (expected == null && !checks.keySet().equals(outputs.keySet())) {
            throw new CaseException("the checks are of " + checks.keySet() + " but the outputs are " + outputs.keySet());
        }
        if (expected == null && outputs.isEmpty()) {
            throw new CaseException("it has neither outputs nor expect_error");
        }
        var continues = metadata.get("continues");
        return new Case(
                path,
                op,
                metadata.getOrDefault("note", ""),
                Json.object(metadata.getOrDefault("attrs", "{}"), "attrs"),
                inputs,
                outputs,
                checks,
                rows(Json.object(metadata.getOrDefault("exact_rows", "{}"), "exact_rows"), outputs),
                continues == null ? null : path.resolveSibling(continues + ".safetensors"),
                expected == null ? null : status(expected));
    }

    private static Status status(String name) throws CaseException {
        try {
            return Status.valueOf(name);
        } catch (IllegalArgumentException e) {
            throw new CaseException("expect_error is " + name + ", which is no status", e);
        }
    }

    private static Map<String, Check> checks(String text) throws CaseException {
        var checks = new LinkedHashMap<String, Check>();
        for (var check : Json.object(text, "check").entrySet()) {
            if (!(check.getValue() instanceof Map<?, ?> fields)) {
                throw new CaseException("the check of " + check.getKey() + " is " + check.getValue());
            }
            var metric = Metric.named(String.valueOf(fields.get("metric")));
            var bound = fields.get("bound") instanceof Number number ? number.doubleValue() : 0;
            checks.put(check.getKey(), new Check(metric, bound));
        }
        return checks;
    }

    private static Map<String, List<long[]>> rows(Map<String, Object> object, Map<String, HostTensor> outputs)
            throws CaseException {
        var rows = new LinkedHashMap<String, List<long[]>>();
        for (var entry : object.entrySet()) {
            var output = outputs.get(entry.getKey());
            if (output == null || !(entry.getValue() instanceof List<?> indices)) {
                throw new CaseException("exact_rows of " + entry.getKey() + " is " + entry.getValue());
            }
            var list = new ArrayList<long[]>();
            for (var index : indices) {
                var leading = index instanceof List<?> several
                        ? several.stream().mapToLong(i -> ((Number) i).longValue()).toArray()
                        : new long[] {((Number) index).longValue()};
                for (var d = 0; d < leading.length; d++) {
                    if (d >= output.shape().length || leading[d] < 0 || leading[d] >= output.shape()[d]) {
                        throw new CaseException("exact_rows: " + index + " lies outside of " + entry.getKey() + " " + output);
                    }
                }
                list.add(leading);
            }
            rows.put(entry.getKey(), list);
        }
        return rows;
    }
}
