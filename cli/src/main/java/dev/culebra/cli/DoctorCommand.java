package dev.culebra.cli;

import com.fasterxml.jackson.core.JsonGenerator;
import dev.culebra.Backend;
import dev.culebra.CulebraException;
import dev.culebra.Device;
import dev.culebra.DeviceInfo;
import dev.culebra.LibraryException;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code doctor}: what was found, what is missing and why, and what to do. Fails only where the library cannot be used. */
@Command(name = "doctor", description = "Say what was found, what is missing and why, and what to do about it.",
        mixinStandardHelpOptions = true)
final class DoctorCommand implements Callable<Integer> {
    /** The kernel driver says here which version it is. */
    private static final Path DRIVER = Path.of("/proc/driver/nvidia/version");

    @Option(names = "--json", description = "As a JSON object.")
    private boolean json;

    @Spec
    private CommandSpec spec;

    /** A backend: its devices, or why there are none and what would help. */
    private record Finding(Backend backend, List<DeviceInfo> devices, String reason, String remedy) {}

    @Override
    public Integer call() {
        var out = spec.commandLine().getOut();
        String library = null;
        String failure = null;
        var findings = new ArrayList<Finding>();
        try {
            library = Device.library();
            for (var backend : Device.available()) {
                findings.add(examine(backend.backend(), backend.devices(), backend.reason()));
            }
        } catch (LibraryException e) {
            failure = e.getMessage();
        }
        if (json) {
            out.println(json(library, failure, findings));
        } else {
            print(out, library, failure, findings);
        }
        return failure == null ? 0 : 1;
    }

    private static Finding examine(Backend backend, int count, String reason) {
        var devices = new ArrayList<DeviceInfo>();
        try {
            for (var index = 0; index < count; index++) {
                try (var device = Device.open(backend + ":" + index)) {
                    devices.add(device.info());
                }
            }
        } catch (CulebraException e) {
            return new Finding(backend, List.of(), String.valueOf(e.getMessage()), remedy(backend, String.valueOf(e.getMessage())));
        }
        return new Finding(backend, devices, reason, devices.isEmpty() ? remedy(backend, reason) : "");
    }

    private static String remedy(Backend backend, String reason) {
        return switch (backend) {
            case CPU -> "reinstall the native library: every build of it has this backend";
            case SIMT -> "for tests alone: cmake --preset dev && cmake --build build/dev, then"
                    + " CULEBRA_LIBRARY=build/dev/libculebra.so ./culebra ...";
            case CUDA -> {
                if (reason.contains("no CUDA code")) {
                    yield "install the CUDA toolkit (sudo apt-get install -y nvidia-cuda-toolkit, or"
                            + " https://developer.nvidia.com/cuda-downloads) and run CULEBRA_CUDA=ON ./culebra build";
                } else if (reason.contains("no CUDA driver") || reason.contains("older than")) {
                    yield "install a current NVIDIA driver: sudo apt-get install -y nvidia-driver (Debian) or"
                            + " sudo ubuntu-drivers install (Ubuntu), then restart";
                } else {
                    yield "see what nvidia-smi -L lists; in a container, start it with --gpus all; check CUDA_VISIBLE_DEVICES";
                }
            }
        };
    }

    private static void print(PrintWriter out, @Nullable String library, @Nullable String failure, List<Finding> findings) {
        var version = Runtime.version();
        line(out, "Java", version + " (" + System.getProperty("java.vendor") + "), " + System.getProperty("java.home"));
        line(out, "System", System.getProperty("os.name") + " " + System.getProperty("os.version") + ", "
                + System.getProperty("os.arch"));
        line(out, "GPU driver", driver() == null ? "none loaded (" + DRIVER + " is absent)" : driver());
        if (failure != null) {
            line(out, "Library", "cannot be used: " + failure);
            return;
        }
        line(out, "Library", library);
        for (var finding : findings) {
            if (finding.devices().isEmpty()) {
                line(out, finding.backend().toString(), "not available: " + finding.reason());
                line(out, "", "-> " + finding.remedy());
            }
            for (var device : finding.devices()) {
                line(out, finding.backend() + ":" + device.index(), describe(device));
            }
        }
    }

    private static String describe(DeviceInfo device) {
        var units = device.backend() == Backend.CPU ? " threads" : " multiprocessors";
        var capability = device.computeMajor() == 0 ? "" : ", compute capability " + device.computeMajor() + "." + device.computeMinor();
        return device.name() + ", " + device.multiprocessors() + units + capability + ", "
                + String.format(Locale.ROOT, "%.1f GiB", device.memoryBytes() / (double) (1L << 30))
                + (device.detail().isEmpty() ? "" : ", " + device.detail());
    }

    private static void line(PrintWriter out, String label, @Nullable String text) {
        out.printf(Locale.ROOT, "%-11s %s%n", label, text);
    }

    /** What the kernel driver says it is; null where none is loaded. */
    private static @Nullable String driver() {
        try {
            return Files.readString(DRIVER).lines().findFirst().orElse("").replaceAll("\\s+", " ").strip();
        } catch (IOException e) {
            return null;
        }
    }

    private static String json(@Nullable String library, @Nullable String failure, List<Finding> findings) {
        return JsonText.object(json -> {
            json.writeObjectFieldStart("java");
            json.writeStringField("version", Runtime.version().toString());
            json.writeStringField("vendor", System.getProperty("java.vendor"));
            json.writeStringField("home", System.getProperty("java.home"));
            json.writeEndObject();
            json.writeObjectFieldStart("system");
            json.writeStringField("name", System.getProperty("os.name"));
            json.writeStringField("version", System.getProperty("os.version"));
            json.writeStringField("architecture", System.getProperty("os.arch"));
            json.writeEndObject();
            json.writeStringField("gpu_driver", driver());
            json.writeObjectFieldStart("library");
            json.writeBooleanField("usable", failure == null);
            json.writeStringField("version", library == null ? null : library.replaceFirst(" from .*", ""));
            json.writeStringField("origin", library == null ? null : library.replaceFirst("^.*? from ", ""));
            json.writeStringField("failure", failure);
            json.writeEndObject();
            json.writeArrayFieldStart("backends");
            for (var finding : findings) {
                write(json, finding);
            }
            json.writeEndArray();
        });
    }

    private static void write(JsonGenerator json, Finding finding) throws IOException {
        json.writeStartObject();
        json.writeStringField("backend", finding.backend().toString());
        json.writeBooleanField("available", !finding.devices().isEmpty());
        json.writeStringField("reason", finding.reason());
        json.writeStringField("remedy", finding.remedy());
        json.writeArrayFieldStart("devices");
        for (var device : finding.devices()) {
            json.writeStartObject();
            json.writeNumberField("index", device.index());
            json.writeStringField("name", device.name());
            json.writeStringField("detail", device.detail());
            json.writeStringField("compute_capability",
                    device.computeMajor() == 0 ? null : device.computeMajor() + "." + device.computeMinor());
            json.writeNumberField("multiprocessors", device.multiprocessors());
            json.writeNumberField("shared_bytes_per_block", device.sharedBytesPerBlock());
            json.writeNumberField("l2_bytes", device.l2Bytes());
            json.writeNumberField("memory_bytes", device.memoryBytes());
            json.writeEndObject();
        }
        json.writeEndArray();
        json.writeEndObject();
    }
}
