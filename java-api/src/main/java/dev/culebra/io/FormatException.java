package dev.culebra.io;

import java.io.IOException;
import java.nio.file.Path;

/** A file whose contents contradict its format. The message names the file, the tensor or field, and the numbers. */
public final class FormatException extends IOException {
    private static final long serialVersionUID = 1L;

    /** Of that file, with that fault. */
    public FormatException(Path file, String fault) {
        super(file + ": " + fault);
    }
}
