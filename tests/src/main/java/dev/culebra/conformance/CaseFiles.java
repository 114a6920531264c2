package dev.culebra.conformance;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileVisitOption;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The cases below files and folders. */
public final class CaseFiles {
    private static final String SUFFIX = ".safetensors";

    private CaseFiles() {}

    /**
     * All case files, folders searched recursively, in the order of their paths.
     *
     * @throws CaseException if a path does not exist or holds no case
     */
    public static List<Path> find(List<Path> paths) throws CaseException {
        var found = new ArrayList<Path>();
        for (var path : paths) {
            if (!Files.exists(path)) {
                throw new CaseException("there is no file or folder " + path);
            }
            if (!Files.isDirectory(path)) {
                found.add(path);
                continue;
            }
            var before = found.size();
            try (var walk = Files.walk(path, FileVisitOption.FOLLOW_LINKS)) {
                walk.filter(file -> file.toString().endsWith(SUFFIX) && Files.isRegularFile(file)).sorted().forEach(found::add);
            } catch (IOException | UncheckedIOException e) {
                throw new CaseException(path + " cannot be read: " + e.getMessage(), e);
            }
            if (found.size() == before) {
                throw new CaseException("there is no case (*" + SUFFIX + ") below " + path);
            }
        }
        return found;
    }
}
