package dev.culebra;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import dev.culebra.io.FormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * One compilation of a Triton kernel: the image, what Triton's metadata says of its launch, and the parameters, of which
 * the metadata says nothing and the signature file all.
 */
record TritonVariant(
        Path stem,
        String kernel,
        boolean isPtx,
        byte[] image,
        int capability,
        int sharedBytes,
        int warps,
        int ctas,
        Scratch globalScratch,
        Scratch profileScratch,
        boolean isDependent,
        boolean isCooperative,
        List<Parameter> parameters) {
    /** Memory that each block of the grid writes to, which the launcher provides. */
    record Scratch(long bytes, long alignment) {}

    /**
     * One argument of the kernel's source.
     *
     * @param divisor what the compiler took the address or the integer to be divisible by; 1 if nothing
     * @param value of a constexpr: a Long, Double, Boolean or String
     */
    record Parameter(String name, TritonType type, long divisor, @Nullable Object value) {}

    private static final JsonFactory JSON = new JsonFactory();
    static final String SIGNATURE = ".signature.json";
    static final String METADATA = ".json";

    /** Reads {@code stem.json}, {@code stem.signature.json}, and {@code stem.cubin} or else {@code stem.ptx}. */
    static TritonVariant read(Path stem) throws IOException {
        var metadata = new Fields(stem, METADATA);
        var signature = new Fields(stem, SIGNATURE);
        var cubin = sibling(stem, ".cubin");
        var ptx = sibling(stem, ".ptx");
        var isPtx = !Files.exists(cubin);
        if (isPtx && !Files.exists(ptx)) {
            throw new FormatException(stem, "there is neither a .cubin nor a .ptx beside its metadata");
        }
        var target = metadata.object(metadata.values, "target");
        if (!"cuda".equals(target.get("backend"))) {
            throw metadata.fault("target.backend is " + target.get("backend") + "; it must be \"cuda\"");
        }
        if (metadata.values.get("tensordesc_meta") instanceof List<?> list && !list.isEmpty()) {
            throw metadata.fault("the kernel takes tensor descriptors from the host, which are not supported; make them in"
                    + " the kernel with tl.make_tensor_descriptor");
        }
        return new TritonVariant(
                stem,
                metadata.text(metadata.values, "name"),
                isPtx,
                Files.readAllBytes(isPtx ? ptx : cubin),
                metadata.number(target, "arch"),
                metadata.number(metadata.values, "shared"),
                metadata.number(metadata.values, "num_warps"),
                metadata.number(metadata.values, "num_ctas"),
                metadata.scratch("global"),
                metadata.scratch("profile"),
                metadata.flag("launch_pdl"),
                metadata.flag("launch_cooperative_grid"),
                parameters(signature));
    }

    private static List<Parameter> parameters(Fields signature) throws IOException {
        if (!(signature.values.get("parameters") instanceof List<?> list)) {
            throw signature.fault("\"parameters\" is missing, or is no list");
        }
        var parameters = new ArrayList<Parameter>();
        for (var each : list) {
            if (!(each instanceof Map<?, ?> fields)) {
                throw signature.fault("a parameter is no object");
            }
            var name = signature.text(fields, "name");
            var text = signature.text(fields, "type");
            var type = TritonType.of(text);
            if (type == null) {
                throw signature.fault("parameter " + name + " has type \"" + text + "\", which cannot be passed");
            }
            var value = fields.get("value");
            if (type.kind() == TritonType.Kind.CONSTANT && value == null) {
                throw signature.fault("the constexpr " + name + " has no \"value\"");
            }
            var divisor = fields.containsKey("divisible_by") ? signature.number(fields, "divisible_by") : 1;
            if (divisor < 1) {
                throw signature.fault("parameter " + name + " is divisible_by " + divisor);
            }
            parameters.add(new Parameter(name, type, divisor, value));
        }
        return List.copyOf(parameters);
    }

    /** If a device of that compute capability runs it. From 9.0 on Triton compiles for one capability alone. */
    boolean runsOn(int major, int minor) {
        var device = 10 * major + minor;
        if (capability >= 90) {
            return device == capability;
        }
        return isPtx ? device >= capability : device / 10 == capability / 10 && device >= capability;
    }

    /** How many of its arguments the compiler took to be divisible. */
    long hints() {
        return parameters.stream().filter(parameter -> parameter.divisor > 1).count();
    }

    String file() {
        return String.valueOf(stem.getFileName());
    }

    static Path sibling(Path stem, String suffix) {
        return stem.resolveSibling(stem.getFileName() + suffix);
    }

    /** The fields of one JSON file. */
    private static final class Fields {
        private final Path file;
        final Map<?, ?> values;

        Fields(Path stem, String suffix) throws IOException {
            file = sibling(stem, suffix);
            if (!Files.exists(file)) {
                throw new FormatException(file, suffix.equals(SIGNATURE)
                        ? "no such file: Triton's metadata does not name the parameters, so their names and types are kept"
                                + " here (docs/triton.md)"
                        : "no such file: it is the metadata that Triton writes beside the " + stem.getFileName() + " image");
            }
            var json = Files.readAllBytes(file);
            try (var parser = JSON.createParser(json)) {
                parser.nextToken();
                if (!(value(parser) instanceof Map<?, ?> read)) {
                    throw fault("it holds no JSON object");
                }
                values = read;
            } catch (FormatException e) {
                throw e;
            } catch (JsonProcessingException e) {
                var at = e.getLocation();
                throw fault("not JSON: " + e.getOriginalMessage() + (at == null ? "" : " at line " + at.getLineNr()));
            } catch (IOException e) { // of the characters' encoding: the bytes are in memory
                throw fault("not JSON: " + e.getMessage());
            }
        }

        private static @Nullable Object value(JsonParser parser) throws IOException {
            return switch (parser.currentToken()) {
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
                    var list = new ArrayList<@Nullable Object>();
                    while (parser.nextToken() != JsonToken.END_ARRAY) {
                        list.add(value(parser));
                    }
                    yield list;
                }
                case VALUE_STRING -> parser.getText();
                case VALUE_NUMBER_INT -> parser.getLongValue();
                case VALUE_NUMBER_FLOAT -> parser.getDoubleValue();
                case VALUE_TRUE -> true;
                case VALUE_FALSE -> false;
                case null, default -> null;
            };
        }

        FormatException fault(String text) {
            return new FormatException(file, text);
        }

        Map<?, ?> object(Map<?, ?> from, String name) throws FormatException {
            if (from.get(name) instanceof Map<?, ?> map) {
                return map;
            }
            throw fault("\"" + name + "\" is missing, or is no object");
        }

        String text(Map<?, ?> from, String name) throws FormatException {
            if (from.get(name) instanceof String text) {
                return text;
            }
            throw fault("\"" + name + "\" is missing, or is no string");
        }

        int number(Map<?, ?> from, String name) throws FormatException {
            if (from.get(name) instanceof Long number && number >= 0 && number <= Integer.MAX_VALUE) {
                return number.intValue();
            }
            throw fault("\"" + name + "\" is missing, or is no number from 0 to 2^31 - 1");
        }

        boolean flag(String name) throws FormatException {
            if (values.get(name) instanceof Boolean flag) {
                return flag;
            }
            throw fault("\"" + name + "\" is missing, or is neither true nor false");
        }

        Scratch scratch(String kind) throws FormatException {
            return new Scratch(number(values, kind + "_scratch_size"), Math.max(1, number(values, kind + "_scratch_align")));
        }
    }
}
