package dev.culebra.bindings;

/** Run in a JVM of its own by {@link NativeLibraryTest}: loads the library and prints where from, or why not. */
final class LoadProbe {
    private LoadProbe() {}

    public static void main(String[] args) {
        try {
            System.out.println("loaded " + NativeLibrary.origin());
        } catch (NativeLibraryException e) {
            System.out.println("failed " + e.getMessage());
        }
    }
}
