package dev.culebra.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** One command in this process: its exit code and what it wrote. */
record Run(int code, String out, String err) {
    static final Path CASES = Path.of("../tests/cases");

    static Run of(String... args) {
        var out = new StringWriter();
        var err = new StringWriter();
        return new Run(Main.run(new PrintWriter(out, true), new PrintWriter(err, true), args), out.toString(), err.toString());
    }

    /** It failed with one line that has these parts. */
    void assertError(String... fragments) {
        assertEquals(1, code, err);
        assertTrue(err.startsWith("error: "), err);
        assertEquals(1, err.lines().count(), err);
        for (var fragment : fragments) {
            assertTrue(err.contains(fragment), () -> "\"" + fragment + "\" is missing in: " + err);
        }
    }

    static Map<String, Object> object(String json) throws IOException {
        try (var parser = new JsonFactory().createParser(json)) {
            parser.nextToken();
            @SuppressWarnings("unchecked")
            var object = (Map<String, Object>) value(parser);
            assertEquals(null, parser.nextToken(), "one object and nothing else");
            return object;
        }
    }

    @SuppressWarnings("unchecked")
    static List<Map<String, Object>> objects(Object list) {
        return (List<Map<String, Object>>) list;
    }

    private static Object value(JsonParser parser) throws IOException {
        return switch (parser.currentToken()) {
            case START_OBJECT -> {
                var map = new LinkedHashMap<String, Object>();
                while (parser.nextToken() == JsonToken.FIELD_NAME) {
                    var key = parser.currentName();
                    parser.nextToken();
                    map.put(key, value(parser));
                }
                yield map;
            }
            case START_ARRAY -> {
                var list = new ArrayList<Object>();
                while (parser.nextToken() != JsonToken.END_ARRAY) {
                    list.add(value(parser));
                }
                yield list;
            }
            case VALUE_NUMBER_INT, VALUE_NUMBER_FLOAT -> parser.getDoubleValue();
            case VALUE_TRUE -> true;
            case VALUE_FALSE -> false;
            case VALUE_NULL -> null;
            default -> parser.getText();
        };
    }
}
