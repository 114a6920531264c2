package dev.culebra.internal;

import org.jspecify.annotations.Nullable;

/** What is watched beyond what safety needs, by system property. */
public final class Diagnostics {
    /** {@code culebra.paranoid}: remember where everything was made, report what was never closed. */
    public static final boolean PARANOID = Boolean.getBoolean("culebra.paranoid");

    /** {@code culebra.check}: operators validate index tensors when they run. */
    public static final boolean CHECK = Boolean.getBoolean("culebra.check");

    /** The log of the library. */
    public static final System.Logger LOG = System.getLogger("dev.culebra");

    private static final StackWalker WALKER = StackWalker.getInstance();
    private static final int FRAMES = 8;

    private Diagnostics() {}

    /** The callers outside the API, innermost first, where paranoid; null otherwise. */
    public static @Nullable String site() {
        if (!PARANOID) {
            return null;
        }
        return WALKER.walk(frames -> {
            var text = new StringBuilder();
            frames.dropWhile(frame -> {
                        var name = frame.getClassName();
                        return name.startsWith("dev.culebra.")
                                && API.contains(name.substring(name.lastIndexOf('.') + 1));
                    })
                    .limit(FRAMES)
                    .forEach(frame -> text.append("\n    at ").append(frame));
            return text.toString();
        });
    }

    private static final java.util.Set<String> API = java.util.Set.of(
            "Diagnostics", "Lease", "Leases", "Scope", "Tensor", "Stream", "Event", "Graph", "Device", "HostBuffer",
            "PackedWeights", "SafeTensors", "Storage");

    /** " (made at ...)", or how to learn it. */
    public static String madeAt(@Nullable String site) {
        return site == null ? "; -Dculebra.paranoid=true tells where it was made" : "; it was made" + site;
    }
}
