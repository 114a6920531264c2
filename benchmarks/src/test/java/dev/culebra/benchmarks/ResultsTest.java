package dev.culebra.benchmarks;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonToken;
import dev.culebra.benchmarks.Results.Row;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ResultsTest {
    private static final List<Row> ROWS = List.of(
            new Row("a & b", "api", "ns", 12.3456, 11, 14, 5, 0.0, null),
            new Row("read", "jni", "ns", 4000, 3900, 4100, 9, null, 3000.0));

    @Test
    void jsonHasEveryFieldThatIsKnown(@TempDir Path folder) throws Exception {
        var file = folder.resolve("device/jmh.json");
        new Results(Map.of("device", "a \"chip\""), ROWS).write(file);
        var names = new ArrayList<String>();
        var numbers = new ArrayList<Double>();
        try (var json = new JsonFactory().createParser(Files.newInputStream(file))) {
            for (JsonToken token; (token = json.nextToken()) != null; ) {
                if (token == JsonToken.FIELD_NAME) {
                    names.add(json.currentName());
                } else if (token.isNumeric()) {
                    numbers.add(json.getDoubleValue());
                }
            }
        }
        assertEquals(List.of("device", "rows",
                "work", "via", "unit", "median", "p10", "p90", "samples", "allocated_bytes_per_call",
                "work", "via", "unit", "median", "p10", "p90", "samples", "limit", "fraction_of_limit"), names);
        assertEquals(List.of(12.35, 11.0, 14.0, 5.0, 0.0, 4000.0, 3900.0, 4100.0, 9.0, 3000.0, 0.75), numbers);
    }

    @Test
    void plotIsWellFormed() throws Exception {
        var svg = BarChart.draw("title < title", "device", ROWS);
        var document = DocumentBuilderFactory.newInstance().newDocumentBuilder()
                .parse(new ByteArrayInputStream(svg.getBytes(StandardCharsets.UTF_8)));
        assertEquals("svg", document.getDocumentElement().getTagName());
        assertEquals(3, document.getElementsByTagName("rect").getLength(), "the background and a bar for each row");
    }
}
