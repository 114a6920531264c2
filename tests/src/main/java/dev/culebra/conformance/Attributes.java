package dev.culebra.conformance;

import dev.culebra.Status;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/** A case's attributes. Each getter takes the default of an absent one; a value that its type excludes is refused as RANGE. */
public final class Attributes {
    private final Map<String, Object> values;
    private final Set<String> read = new HashSet<>();

    /** Strings, numbers (Long, Double), booleans and lists of them by their names. */
    public Attributes(Map<String, Object> values) {
        this.values = values;
    }

    /** An integer. */
    public int integer(String name, int absent) {
        return switch (value(name)) {
            case null -> absent;
            case Long number when number == number.intValue() -> number.intValue();
            case Object other -> throw outside(name, other, "an integer");
        };
    }

    /** A number. */
    public float number(String name, double absent) {
        return switch (value(name)) {
            case null -> (float) absent;
            case Number number -> number.floatValue();
            case Object other -> throw outside(name, other, "a number");
        };
    }

    /** A number in double precision, for what an operator takes so. */
    public double real(String name, double absent) {
        return switch (value(name)) {
            case null -> absent;
            case Number number -> number.doubleValue();
            case Object other -> throw outside(name, other, "a number");
        };
    }

    /** True or false. */
    public boolean flag(String name, boolean absent) {
        return switch (value(name)) {
            case null -> absent;
            case Boolean flag -> flag;
            case Object other -> throw outside(name, other, "true or false");
        };
    }

    /** A list of integers; empty where there is none. */
    public List<Integer> integers(String name) {
        return list(name).stream()
                .map(entry -> switch (entry) {
                    case Long number when number == number.intValue() -> number.intValue();
                    default -> throw outside(name, entry, "a list of integers");
                })
                .toList();
    }

    /** A list of true and false; empty where there is none. */
    public List<Boolean> flags(String name) {
        return list(name).stream()
                .map(entry -> switch (entry) {
                    case Boolean flag -> flag;
                    default -> throw outside(name, entry, "a list of true and false");
                })
                .toList();
    }

    private List<?> list(String name) {
        return switch (value(name)) {
            case null -> List.of();
            case List<?> list -> list;
            case Object other -> throw outside(name, other, "a list");
        };
    }

    /** A constant, written in lower case; the absent one's class is the set of them. */
    public <E extends Enum<E>> E oneOf(String name, E absent) {
        var text = value(name);
        if (text == null) {
            return absent;
        }
        var constants = absent.getDeclaringClass().getEnumConstants();
        return Arrays.stream(constants)
                .filter(constant -> constant.name().toLowerCase(Locale.ROOT).equals(text))
                .findFirst()
                .orElseThrow(() -> outside(name, text, Arrays.stream(constants)
                        .map(constant -> constant.name().toLowerCase(Locale.ROOT))
                        .collect(Collectors.joining(", "))));
    }

    private Object value(String name) {
        read.add(name);
        return values.get(name);
    }

    /** The attributes that no getter has asked for. */
    List<String> unread() {
        return values.keySet().stream().filter(name -> !read.contains(name)).toList();
    }

    private static Refusal outside(String name, Object value, String allowed) {
        return new Refusal(Status.RANGE, name + " is " + value + "; it must be one of " + allowed);
    }
}
