package dev.culebra;

import java.util.stream.Stream;

/** The backends that the tests run on; one that cannot be opened is a failure, not a skip. */
final class Backends {
    private Backends() {}

    static Stream<String> all() {
        return Stream.of(System.getProperty("culebra.test.backends", "cpu,simt").split(","));
    }
}
