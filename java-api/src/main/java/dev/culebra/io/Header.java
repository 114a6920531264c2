package dev.culebra.io;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The header of a safetensors file: a JSON object of tensors, each with its type, extents and place in the data. What
 * it says is checked against itself and the size of the data: tensors cover the data without gap or overlap.
 */
record Header(List<Item> items, Map<String, String> metadata) {
    /** One tensor; offsets count from the begin of the data. */
    record Item(String name, String type, List<Long> shape, long begin, long end) {}

    /** Bits of an element of every type that the format has. */
    private static final Map<String, Integer> BITS = Map.ofEntries(
            Map.entry("BOOL", 8), Map.entry("U8", 8), Map.entry("I8", 8), Map.entry("U16", 16), Map.entry("I16", 16),
            Map.entry("U32", 32), Map.entry("I32", 32), Map.entry("U64", 64), Map.entry("I64", 64),
                    Map.entry("F16", 16),
            Map.entry("BF16", 16), Map.entry("F32", 32), Map.entry("F64", 64), Map.entry("C64", 64),
            Map.entry("F8_E4M3", 8), Map.entry("F8_E5M2", 8), Map.entry("F8_E8M0", 8), Map.entry("F4", 4),
            Map.entry("F6_E2M3", 6), Map.entry("F6_E3M2", 6));

    private static final JsonFactory JSON = JsonFactory.builder()
            .streamReadConstraints(StreamReadConstraints.builder()
                    .maxNameLength(1 << 16)
                    .maxStringLength(1 << 27)
                    .build())
            .build();

    static Header parse(Path file, byte[] json, long dataBytes) throws IOException {
        var items = new LinkedHashMap<String, Item>();
        Map<String, String> metadata = Map.of();
        if (json.length < 2 || json[0] != '{' || json[1] == 0) { // the parser would guess other encodings from zeros
            throw new FormatException(file, "the header must be a JSON object in UTF-8, from its first byte on");
        }
        try (var parser = JSON.createParser(json)) {
            expect(file, parser.nextToken(), JsonToken.START_OBJECT, "the header must be a JSON object");
            var names = new HashSet<String>();
            for (var name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
                if (!names.add(name)) {
                    throw new FormatException(file, "the header names \"" + name + "\" twice");
                }
                if (name.equals("__metadata__")) {
                    metadata = strings(file, parser, "__metadata__");
                } else {
                    items.put(name, item(file, parser, name));
                }
            }
            if (parser.nextToken() != null) {
                throw new FormatException(file, "something follows the JSON object of the header");
            }
        } catch (FormatException e) {
            throw e;
        } catch (IOException e) { // the parser's, since the bytes are in memory
            throw new FormatException(file, "the header is not JSON: " + fault(e));
        }
        var inOrder = new ArrayList<>(items.values());
        inOrder.sort(Comparator.comparingLong(Item::begin).thenComparingLong(Item::end));
        checkCover(file, inOrder, dataBytes);
        return new Header(List.copyOf(items.values()), metadata);
    }

    /** A JSON object of strings, whose begin is the parser's next token. */
    static Map<String, String> strings(Path file, JsonParser parser, String what) throws IOException {
        expect(file, parser.nextToken(), JsonToken.START_OBJECT, what + " must be an object");
        var map = new LinkedHashMap<String, String>();
        for (var key = parser.nextFieldName(); key != null; key = parser.nextFieldName()) {
            expect(file, parser.nextToken(), JsonToken.VALUE_STRING, what + ": \"" + key + "\" must be a string");
            if (map.put(key, parser.getText()) != null) {
                throw new FormatException(file, what + " names \"" + key + "\" twice");
            }
        }
        return map;
    }

    private static Item item(Path file, JsonParser parser, String name) throws IOException {
        expect(file, parser.nextToken(), JsonToken.START_OBJECT, "tensor " + name + " must be an object");
        String type = null;
        List<Long> shape = null;
        List<Long> offsets = null;
        for (var key = parser.nextFieldName(); key != null; key = parser.nextFieldName()) {
            switch (key) {
                case "dtype" -> {
                    expect(file, parser.nextToken(), JsonToken.VALUE_STRING, "tensor " + name
                            + ": dtype must be a string");
                    type = once(file, name, key, type, parser.getText());
                }
                case "shape" -> shape = once(file, name, key, shape, numbers(file, parser, name, key));
                case "data_offsets" -> offsets = once(file, name, key, offsets, numbers(file, parser, name, key));
                default -> {
                    parser.nextToken();
                    parser.skipChildren();
                }
            }
        }
        if (type == null || shape == null || offsets == null) {
            throw new FormatException(file, "tensor " + name + " lacks "
                    + (type == null ? "dtype" : shape == null ? "shape" : "data_offsets"));
        }
        if (offsets.size() != 2) {
            throw new FormatException(file, "tensor " + name + ": data_offsets " + offsets + " must be two numbers");
        }
        checkSize(file, name, type, shape, offsets.get(0), offsets.get(1));
        return new Item(name, type, List.copyOf(shape), offsets.get(0), offsets.get(1));
    }

    private static <T> T once(Path file, String name, String key, @Nullable T before, T value) throws FormatException {
        if (before != null) {
            throw new FormatException(file, "tensor " + name + " states " + key + " twice");
        }
        return value;
    }

    private static List<Long> numbers(Path file, JsonParser parser, String name, String key) throws IOException {
        expect(file, parser.nextToken(), JsonToken.START_ARRAY, "tensor " + name + ": " + key + " must be an array");
        var numbers = new ArrayList<Long>();
        while (parser.nextToken() != JsonToken.END_ARRAY) {
            if (parser.currentToken() != JsonToken.VALUE_NUMBER_INT) {
                throw new FormatException(file, "tensor " + name + ": " + key + " must hold whole numbers, not "
                        + parser.getText());
            }
            var value = parser.getBigIntegerValue();
            if (value.signum() < 0 || value.bitLength() > 63) {
                throw new FormatException(file, "tensor " + name + ": " + key + " has " + value + ", which is "
                        + (value.signum() < 0 ? "negative" : "beyond 2^63"));
            }
            numbers.add(value.longValue());
        }
        return numbers;
    }

    private static void checkSize(Path file, String name, String type, List<Long> shape, long begin, long end)
            throws FormatException {
        var what = "tensor " + name + " " + type + shape;
        var bits = BITS.get(type);
        if (bits == null) {
            throw new FormatException(file, "tensor " + name + " has unknown dtype " + type);
        }
        if (begin > end) {
            throw new FormatException(file, what + ": data_offsets [" + begin + ", " + end + "] run backwards");
        }
        long needed;
        try {
            var product = 1L;
            for (var extent : shape) {
                product = Math.multiplyExact(product, extent);
            }
            product = Math.multiplyExact(product, bits);
            if (product % 8 != 0) {
                throw new FormatException(file, what + " has " + product + " bits, which are no whole bytes");
            }
            needed = product / 8;
        } catch (ArithmeticException e) {
            throw new FormatException(file, what + " has more than 2^63 bits");
        }
        if (needed != end - begin) {
            throw new FormatException(file, what + " takes " + needed + " bytes but data_offsets [" + begin + ", " + end
                    + "] give it " + (end - begin));
        }
    }

    private static void checkCover(Path file, List<Item> inOrder, long dataBytes) throws FormatException {
        var covered = 0L;
        var previous = "the begin of the data";
        for (var item : inOrder) {
            var offsets = "tensor " + item.name + ": data_offsets [" + item.begin + ", " + item.end + "]";
            if (item.end > dataBytes) {
                throw new FormatException(file, offsets + " exceed the " + dataBytes + " bytes of data in the file");
            }
            if (item.begin < covered) {
                throw new FormatException(file, offsets + " overlap " + previous + ", which ends at " + covered);
            }
            if (item.begin > covered) {
                throw new FormatException(file, offsets + " leave a gap behind " + previous + ", which ends at "
                        + covered);
            }
            covered = item.end;
            previous = "tensor " + item.name;
        }
        if (covered != dataBytes) {
            throw new FormatException(file, "the file has " + dataBytes + " bytes of data but its tensors end at "
                    + covered);
        }
    }

    static void expect(Path file, @Nullable JsonToken token, JsonToken wanted, String fault) throws FormatException {
        if (token != wanted) {
            throw new FormatException(file, fault);
        }
    }

    /** What a JSON parser says of its input, and where. */
    static String fault(IOException e) {
        if (!(e instanceof JsonProcessingException known)) {
            return String.valueOf(e.getMessage()); // of the characters' encoding
        }
        var at = known.getLocation();
        return known.getOriginalMessage() + (at == null ? "" : " at byte " + at.getByteOffset());
    }

    static JsonParser parser(byte[] json) throws IOException {
        return JSON.createParser(json);
    }
}
