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
import java.util.stream.Stream;

/** Which backends the tests run on, and what of them must be there. */
final class Backends {
    /** The backends that must run, by {@code -Dculebra.expected.backends=cpu,simt}. */
    static final List<String> EXPECTED = Arrays.stream(System.getProperty("culebra.expected.backends", "cpu").split(","))
            .map(String::strip)
            .filter(name -> !name.isEmpty())
            .toList();

    private static final String HOPPER_DEVICE = "simt:1";

    private Backends() {}

    /** The devices without a GPU that are here: cpu, and in a build for tests simt, of which the second one emulates 9.0. */
    static List<String> here() {
        return Device.available().stream()
                .filter(Availability::isAvailable)
                .map(availability -> availability.backend().toString())
                .filter(name -> !name.equals("cuda"))
                .flatMap(name -> name.equals("simt") ? Stream.of(name, HOPPER_DEVICE) : Stream.of(name))
                .toList();
    }

    /** The operators that are tested on a device: those that its backend declares, on simt each where it has kernels. */
    static Set<String> operators(String device) {
        return switch (device) {
            case "simt" -> declared("simt", "8.0");
            case HOPPER_DEVICE -> declared("simt", "9.0");
            default -> declared(device.replaceFirst(":.*", ""));
        };
    }

    private static Set<String> declared(String backend, String computeCapability) {
        var all = declared(backend);
        return Ops.list().stream()
                .filter(op -> all.contains(op.name()) && op.computeCapabilities().contains(computeCapability))
                .map(OpInfo::name)
                .collect(Collectors.toSet());
    }

    /** The operators that a backend declares. */
    static Set<String> declared(String backend) {
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
