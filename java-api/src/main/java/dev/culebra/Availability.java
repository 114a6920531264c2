package dev.culebra;

/**
 * What a backend offers on this machine.
 *
 * @param backend the backend
 * @param devices how many devices it has here
 * @param reason why it has none: not compiled in, no driver, no device; empty where it has some
 */
public record Availability(Backend backend, int devices, String reason) {
    /** If a device can be opened. */
    public boolean isAvailable() {
        return devices > 0;
    }
}
