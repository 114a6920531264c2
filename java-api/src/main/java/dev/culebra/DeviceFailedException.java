package dev.culebra;

import org.jspecify.annotations.Nullable;

/** The device failed. It stays failed: close it; other devices are not affected. */
public final class DeviceFailedException extends CulebraException {
    private static final long serialVersionUID = 1L;

    DeviceFailedException(@Nullable String op, @Nullable Backend backend, String message) {
        super(Status.DEVICE_ERROR, op, backend, message);
    }
}
