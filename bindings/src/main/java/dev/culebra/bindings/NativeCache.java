package dev.culebra.bindings;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.DigestOutputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Extracts native libraries from the class path into a directory of the user's cache that is named by their contents.
 * A file gets its name only when it is complete, by an atomic rename, and is never changed or deleted again: processes
 * that start at once, and other versions, do not disturb each other.
 */
final class NativeCache {
    /** The property that names another cache directory than {@code $XDG_CACHE_HOME/culebra} or {@code ~/.cache/culebra}. */
    static final String CACHE_PROPERTY = "culebra.cache";

    /** Libraries that ours finds beside itself, where a build ships them. */
    private static final List<String> SHIPPED_BESIDE = List.of("libhwy.so.1");

    private NativeCache() {}

    /** The extracted library, or null with the reason added to {@code failures}. */
    static @Nullable Path extract(String library, List<String> failures) {
        var folder = "META-INF/native/" + NativeLibrary.platform() + "/";
        var resources = new LinkedHashMap<String, URL>();
        SHIPPED_BESIDE.forEach(name -> find(folder, name, resources));
        if (!find(folder, library, resources)) {
            failures.add("class path: no resource " + folder + library);
            return null;
        }
        var cache = directory();
        try {
            return extract(resources, cache.resolve("native")).resolve(library);
        } catch (IOException | UncheckedIOException e) {
            failures.add("class path: " + folder + library + " could not be extracted to " + cache + " (" + e
                    + "); -D" + CACHE_PROPERTY + "=DIR names another directory");
            return null;
        }
    }

    private static boolean find(String folder, String name, Map<String, URL> found) {
        // The class loader, not the class: the natives' jar need not be the module of this class.
        var url = NativeCache.class.getClassLoader().getResource(folder + name);
        if (url != null) {
            found.put(name, url);
        }
        return url != null;
    }

    private static Path directory() {
        var named = System.getProperty(CACHE_PROPERTY);
        if (named != null) {
            return Path.of(named).toAbsolutePath();
        }
        var xdg = System.getenv("XDG_CACHE_HOME");
        var base = xdg != null && Path.of(xdg).isAbsolute() ? Path.of(xdg) : Path.of(System.getProperty("user.home"), ".cache");
        return base.toAbsolutePath().resolve("culebra");
    }

    private static Path extract(Map<String, URL> resources, Path parent) throws IOException {
        var folder = Files.createDirectories(parent.resolve(digest(resources)), ownerOnly());
        for (var resource : resources.entrySet()) {
            var target = folder.resolve(resource.getKey());
            if (Files.exists(target)) {
                continue;
            }
            var partial = Files.createTempFile(folder, resource.getKey(), ".part");
            try {
                try (var in = resource.getValue().openStream()) {
                    Files.copy(in, partial, StandardCopyOption.REPLACE_EXISTING);
                }
                Files.move(partial, target, StandardCopyOption.ATOMIC_MOVE);
            } finally {
                Files.deleteIfExists(partial);
            }
        }
        return folder;
    }

    private static String digest(Map<String, URL> resources) throws IOException {
        try {
            var out = new DigestOutputStream(OutputStream.nullOutputStream(), MessageDigest.getInstance("SHA-256"));
            for (var resource : resources.entrySet()) {
                out.write((resource.getKey() + "\0").getBytes(StandardCharsets.UTF_8));
                try (InputStream in = resource.getValue().openStream()) {
                    in.transferTo(out);
                }
            }
            return HexFormat.of().formatHex(out.getMessageDigest().digest());
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError("every Java platform has SHA-256", e);
        }
    }

    private static FileAttribute<?> ownerOnly() {
        return PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"));
    }
}
