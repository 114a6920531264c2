package dev.culebra.tests;

import dev.culebra.Availability;
import dev.culebra.Device;
import dev.culebra.OpInfo;
import dev.culebra.Ops;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;

/** Which backends the tests run on, and what of them must be there. */
final class Backends {
    /** The backends that must run, by {@code -Dculebra.expected.backends=cpu,simt}. */
    static final List<String> EXPECTED = Arrays.stream(System.getProperty("culebra.expected.backends", "cpu").split(","))
            .map(String::strip)
            .filter(name -> !name.isEmpty())
            .toList();

    /** The operators that every backend must have. */
    static final Set<String> EVERYWHERE = Set.of(
            "pack_weights", "unpack_weights", "quantize_weights", "w4a16_gemm", "gemm",
            "quantize_activations", "linear_logprob", "sparse_mlp",
            "rms_norm", "layer_norm", "rope", "silu_mul", "gelu_mul", "sigmoid_mul", "softmax", "embedding", "argmax",
            "add", "scale", "cast", "copy_strided", "sample");

    private Backends() {}

    /** The backends without a GPU that are here: cpu, and simt in a build for tests. */
    static List<String> here() {
        return Device.available().stream()
                .filter(Availability::isAvailable)
                .map(availability -> availability.backend().toString())
                .filter(name -> !name.equals("cuda"))
                .toList();
    }

    /** The operators that a backend declares. */
    static Set<String> operators(String backend) {
        return Ops.list().stream()
                .filter(op -> op.backends().stream().anyMatch(other -> other.toString().equals(backend)))
                .map(OpInfo::name)
                .collect(Collectors.toSet());
    }

    /** The folder of the public cases: of the repository, or of the bundle's working directory. */
    static Path cases() {
        var home = System.getProperty("culebra.home");
        for (var folder : home == null ? List.of("cases", "tests/cases") : List.of(home + "/tests/cases", "cases")) {
            if (Files.isDirectory(Path.of(folder))) {
                return Path.of(folder);
            }
        }
        throw new IllegalStateException("no folder tests/cases here; -Dculebra.home=DIR names the repository");
    }
}
