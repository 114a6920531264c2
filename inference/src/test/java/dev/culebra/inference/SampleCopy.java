package dev.culebra.inference;

import dev.culebra.io.SafeTensors;
import dev.culebra.io.SafeTensorsWriter;
import dev.culebra.io.TensorEntry;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import java.util.List;
import java.util.function.Function;

/** Changed copies of the sample checkpoints. */
final class SampleCopy {
    private SampleCopy() {}

    /** A copy of a sample in which {@code change} has replaced each tensor by others, or by none. */
    static void write(String checkpoint, Path directory, Function<TensorEntry, List<TensorEntry>> change) throws IOException {
        var writer = new SafeTensorsWriter();
        for (var entry : SafeTensors.open(Golden.SAMPLES.resolve(checkpoint)).entries()) {
            for (var changed : change.apply(entry)) {
                writer.add(changed.name(), changed.dtype().orElseThrow(), changed.extents(), changed.data());
            }
        }
        writer.write(directory.resolve("model.safetensors"));
        copyConfig(checkpoint, directory);
    }

    static void copyConfig(String checkpoint, Path directory) throws IOException {
        Files.copy(Golden.SAMPLES.resolve(checkpoint).resolve("config.json"), directory.resolve("config.json"),
                StandardCopyOption.REPLACE_EXISTING);
    }

    /** The same bytes, taken for another type or shape. */
    static TensorEntry with(TensorEntry entry, String type, long... shape) {
        return new TensorEntry(entry.name(), type, Arrays.stream(shape).boxed().toList(), entry.data(), entry.file());
    }
}
