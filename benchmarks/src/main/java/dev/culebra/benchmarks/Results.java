package dev.culebra.benchmarks;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * What one run measured.
 *
 * @param run what was run, where, when and on what
 * @param rows one a benchmark
 */
record Results(Map<String, String> run, List<Row> rows) {
    /**
     * One benchmark: median and spread over its samples, in {@code unit} a call.
     *
     * @param work what was done
     * @param via by which way
     * @param unit of median, p10, p90 and limit
     * @param allocatedBytes what a call allocated on the Java heap; null: not measured
     * @param limit the least that the hardware allows; null: none is known
     */
    record Row(
            String work,
            String via,
            String unit,
            double median,
            double p10,
            double p90,
            long samples,
            @Nullable Double allocatedBytes,
            @Nullable Double limit) {

        /** The part of the hardware's speed that was reached. */
        @Nullable Double fraction() {
            return limit == null ? null : limit / median;
        }
    }

    void write(Path file) throws IOException {
        Files.createDirectories(file.toAbsolutePath().getParent());
        try (var json = new JsonFactory().createGenerator(Files.newBufferedWriter(file)).useDefaultPrettyPrinter()) {
            json.writeStartObject();
            for (var entry : run.entrySet()) {
                json.writeStringField(entry.getKey(), entry.getValue());
            }
            json.writeArrayFieldStart("rows");
            for (var row : rows) {
                json.writeStartObject();
                json.writeStringField("work", row.work);
                json.writeStringField("via", row.via);
                json.writeStringField("unit", row.unit);
                number(json, "median", row.median);
                number(json, "p10", row.p10);
                number(json, "p90", row.p90);
                json.writeNumberField("samples", row.samples);
                number(json, "allocated_bytes_per_call", row.allocatedBytes);
                number(json, "limit", row.limit);
                number(json, "fraction_of_limit", row.fraction());
                json.writeEndObject();
            }
            json.writeEndArray();
            json.writeEndObject();
            json.writeRaw('\n');
        }
    }

    private static void number(JsonGenerator json, String name, @Nullable Double value) throws IOException {
        if (value != null) {
            json.writeFieldName(name);
            json.writeNumber(format(value));
        }
    }

    /** Four digits are more than a measurement has. */
    static String format(double value) {
        if (value == 0 || Math.abs(value) >= 1000) {
            return Long.toString(Math.round(value));
        }
        var digits = Math.max(0, 3 - (int) Math.floor(Math.log10(Math.abs(value))));
        return String.format(Locale.ROOT, "%." + digits + "f", value);
    }

    String table() {
        var text = new StringBuilder(String.format(Locale.ROOT, "%-34s %-14s %10s %10s %10s  %-6s %9s %9s%n",
                "work", "via", "median", "p10", "p90", "unit", "B/call", "of limit"));
        for (var row : rows) {
            text.append(String.format(Locale.ROOT, "%-34s %-14s %10s %10s %10s  %-6s %9s %9s%n",
                    row.work, row.via, format(row.median), format(row.p10), format(row.p90), row.unit,
                    row.allocatedBytes == null ? "" : String.format(Locale.ROOT, "%.1f", row.allocatedBytes),
                    row.limit == null ? "" : String.format(Locale.ROOT, "%.0f %%", 100 * row.fraction())));
        }
        return text.toString();
    }
}
