package dev.culebra.inference;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** An object of a JSON file whose fields are read by type; what is missing or wrong is named by file and field. */
final class JsonObject {
    private static final JsonFactory FACTORY =
            JsonFactory.builder().enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION).build();

    private final Path file;
    private final String prefix;
    private final Map<?, ?> values;

    private JsonObject(Path file, String prefix, Map<?, ?> values) {
        this.file = file;
        this.prefix = prefix;
        this.values = values;
    }

    /** Reads a file that holds one object. */
    static JsonObject read(Path file) {
        return parse(file, FACTORY, parser -> {
            if (!(value(parser) instanceof Map<?, ?> values)) {
                throw new ModelException(file + ": holds no JSON object");
            }
            return new JsonObject(file, "", values);
        });
    }

    /** Refuses a file that does not hold one object, of no more than {@code deepest} levels. */
    static void check(Path file, int deepest) {
        var factory = JsonFactory.builder()
                .streamReadConstraints(StreamReadConstraints.builder().maxNestingDepth(deepest).build()).build();
        parse(file, factory, parser -> {
            if (parser.currentToken() != JsonToken.START_OBJECT) {
                throw new ModelException(file + ": holds no JSON object");
            }
            for (var depth = 1; depth > 0; ) {
                var token = parser.nextToken();
                depth += token == null ? -depth : token.isStructStart() ? 1 : token.isStructEnd() ? -1 : 0;
            }
            return file;
        });
    }

    /** What is read from the first token on, up to the end of what begins there. */
    private interface Body<T> {
        T read(JsonParser parser) throws IOException;
    }

    private static <T> T parse(Path file, JsonFactory factory, Body<T> body) {
        try (var parser = factory.createParser(Files.readAllBytes(file))) {
            parser.nextToken();
            var value = body.read(parser);
            if (parser.nextToken() != null) {
                throw new ModelException(file + ": holds more than one JSON object");
            }
            return value;
        } catch (NoSuchFileException e) {
            throw new ModelException(file + ": no such file", e);
        } catch (JsonProcessingException e) {
            var at = e.getLocation(); // none where a number or the nesting exceeds what the parser allows
            throw new ModelException(file + ": not JSON"
                    + (at == null ? "" : " at line " + at.getLineNr() + ", column " + at.getColumnNr()) + ": "
                    + e.getOriginalMessage(), e);
        } catch (IOException e) {
            throw new ModelException(file + ": cannot be read: " + e.getMessage(), e);
        }
    }

    private static @Nullable Object value(JsonParser parser) throws IOException {
        var token = parser.currentToken();
        return switch (token) {
            case null -> null;
            case START_OBJECT -> {
                var object = new LinkedHashMap<String, @Nullable Object>();
                while (parser.nextToken() != JsonToken.END_OBJECT) {
                    var name = parser.currentName();
                    parser.nextToken();
                    object.put(name, value(parser));
                }
                yield object;
            }
            case START_ARRAY -> {
                var array = new ArrayList<@Nullable Object>();
                while (parser.nextToken() != JsonToken.END_ARRAY) {
                    array.add(value(parser));
                }
                yield array;
            }
            case VALUE_STRING -> parser.getText();
            case VALUE_NUMBER_INT, VALUE_NUMBER_FLOAT -> parser.getNumberValue();
            case VALUE_TRUE -> true;
            case VALUE_FALSE -> false;
            default -> null;
        };
    }

    /** If the field is there and not null. */
    boolean has(String name) {
        return values.get(name) != null;
    }

    /** The error of a field. */
    ModelException error(String name, String fault) {
        return new ModelException(file + ": " + prefix + name + " " + fault);
    }

    private <T> T require(String name, Class<T> type, String words) {
        var value = values.get(name);
        if (value == null) {
            throw error(name, "is missing; it must be " + words);
        }
        if (!type.isInstance(value)) {
            throw error(name, "is " + value + "; it must be " + words);
        }
        return type.cast(value);
    }

    /** A whole number from {@code least} on. */
    int integer(String name, int least) {
        return whole(name, require(name, Number.class, "a whole number"), least);
    }

    private int whole(String name, Number number, int least) {
        var value = number.doubleValue();
        if (value != Math.rint(value) || value < least || value > Integer.MAX_VALUE) {
            throw error(name, "is " + number + "; it must be a whole number of at least " + least);
        }
        return (int) value;
    }

    int integer(String name, int least, int absent) {
        return has(name) ? integer(name, least) : absent;
    }

    /** A number larger than 0. */
    double positive(String name) {
        var value = require(name, Number.class, "a number").doubleValue();
        if (!(value > 0) || Double.isInfinite(value)) {
            throw error(name, "is " + value + "; it must be larger than 0");
        }
        return value;
    }

    boolean flag(String name, boolean absent) {
        return has(name) ? require(name, Boolean.class, "true or false") : absent;
    }

    String text(String name) {
        return require(name, String.class, "a string");
    }

    String text(String name, String absent) {
        return has(name) ? text(name) : absent;
    }

    /** A list of strings. */
    List<String> texts(String name) {
        var list = new ArrayList<String>();
        for (var item : require(name, List.class, "a list of strings")) {
            if (!(item instanceof String text)) {
                throw error(name, "holds " + item + "; it must be a list of strings");
            }
            list.add(text);
        }
        return list;
    }

    /** Whole numbers from 0 on: one, a list of them, or none. */
    List<Integer> integers(String name) {
        var list = new ArrayList<Integer>();
        if (has(name)) {
            var value = values.get(name);
            for (var item : value instanceof List<?> items ? items : List.of(value)) {
                if (!(item instanceof Number number)) {
                    throw error(name, "holds " + item + "; it must be a whole number or a list of them");
                }
                list.add(whole(name, number, 0));
            }
        }
        return list;
    }

    /** An object, or null where there is none. */
    @Nullable JsonObject object(String name) {
        return has(name) ? new JsonObject(file, prefix + name + ".", require(name, Map.class, "an object")) : null;
    }
}
