package dev.culebra;

import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;

/** Where operators run. */
public enum Backend {
    /** The processor: multithreaded SIMD. */
    CPU(1),
    /** An NVIDIA GPU. */
    CUDA(2),
    /** The CUDA kernels' source on the processor, every CUDA thread emulated, for tests. */
    SIMT(12);

    private static final Backend[] VALUES = values();

    /** DLPack's device type. */
    final int deviceType;

    Backend(int deviceType) {
        this.deviceType = deviceType;
    }

    /**
     * The backend called {@code "cpu"}, {@code "cuda"} or {@code "simt"}.
     *
     * @throws ArgumentException if there is no such backend
     */
    public static Backend named(String name) {
        for (var backend : VALUES) {
            if (backend.toString().equals(name)) {
                return backend;
            }
        }
        throw new ArgumentException(Status.RANGE, null, null, "there is no backend \"" + name + "\"; there are "
                + Arrays.stream(VALUES).map(Backend::toString).collect(Collectors.joining(", ")));
    }

    /** {@code cpu}, {@code cuda} or {@code simt}. */
    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
