package dev.culebra.benchmarks.calls;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;

/** The small native libraries that the build compiled into this jar. */
final class NativeResource {
    private NativeResource() {}

    /** Loads {@code META-INF/native/<name>}. */
    @SuppressWarnings("restricted")
    static void load(String name) {
        try (var resource = NativeResource.class.getResourceAsStream("/META-INF/native/" + name)) {
            if (resource == null) {
                throw new IllegalStateException("the jar has no " + name + ": it was built on a system that has none of it");
            }
            var file = Files.createTempFile("culebra-", "-" + name);
            try {
                Files.copy(resource, file, StandardCopyOption.REPLACE_EXISTING);
                System.load(file.toString());
            } finally {
                Files.delete(file);
            }
        } catch (IOException e) {
            throw new UncheckedIOException("cannot extract " + name, e);
        }
    }
}
