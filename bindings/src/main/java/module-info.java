/**
 * The C ABI as Java method handles, and the loading of the native library. Internal: everything here can crash the
 * JVM; {@code dev.culebra} is the API.
 */
@SuppressWarnings("module") // the modules named here are built after this one
module dev.culebra.bindings {
    requires static org.jspecify;

    exports dev.culebra.bindings to
            dev.culebra, dev.culebra.tests, dev.culebra.benchmarks;
    exports dev.culebra.bindings.generated to
            dev.culebra, dev.culebra.tests, dev.culebra.benchmarks;
}
