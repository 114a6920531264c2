package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.Scope;
import dev.culebra.Stream;
import dev.culebra.Tensor;
import dev.culebra.io.SafeTensors;
import dev.culebra.io.TensorEntry;
import java.io.IOException;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;

/** The tensors of a model directory, checked before they are read. */
final class Checkpoint {
    private final SafeTensors tensors;

    private Checkpoint(SafeTensors tensors) {
        this.tensors = tensors;
    }

    /**
     * Opens the safetensors of a directory.
     *
     * @throws ModelException if there are none, or a header contradicts itself or its file
     */
    static Checkpoint open(Path directory) {
        try {
            return new Checkpoint(SafeTensors.open(directory));
        } catch (NoSuchFileException e) {
            throw new ModelException(e.getFile() + ": " + (e.getReason() == null ? "no such file" : e.getReason()), e);
        } catch (IOException e) {
            throw new ModelException(e.getMessage(), e);
        }
    }

    boolean contains(String name) {
        return tensors.contains(name);
    }

    /** Refuses a tensor that is missing, or has another shape or none of the types. */
    void check(String name, long[] shape, DType... dtypes) {
        if (!tensors.contains(name)) {
            throw new ModelException(tensors.path() + ": tensor " + name + " is missing; the config asks for "
                    + Arrays.toString(shape));
        }
        var entry = entry(name);
        if (!Arrays.equals(entry.extents(), shape)) {
            throw error(name, "has shape " + entry.shape() + "; by the config it must be " + Arrays.toString(shape));
        }
        if (entry.dtype().stream().noneMatch(Arrays.asList(dtypes)::contains)) {
            throw error(name, "is of " + entry.type() + "; it must be of "
                    + String.join(" or ", Arrays.stream(dtypes).map(DType::safeTensorsName).toList()));
        }
    }

    /** The extents of a tensor that is there. */
    long[] shape(String name) {
        return entry(name).extents();
    }

    /** The type of a tensor that was checked. */
    DType dtype(String name) {
        return entry(name).dtype().orElseThrow();
    }

    /** The error of a tensor. */
    ModelException error(String name, String fault) {
        return new ModelException(entry(name).file() + ": tensor " + name + " " + fault);
    }

    /** The tensor on the stream's device. */
    Tensor load(Stream stream, Scope scope, String name) {
        try {
            return tensors.load(stream, scope, name);
        } catch (IOException e) {
            throw new ModelException(e.getMessage(), e);
        }
    }

    private TensorEntry entry(String name) {
        try {
            return tensors.entry(name);
        } catch (IOException e) {
            throw new ModelException(e.getMessage(), e);
        }
    }
}
