/**
 * Native inference kernels for the JVM, behind a safe tensor API: {@link dev.culebra.Device}, {@link
 * dev.culebra.Stream}, {@link dev.culebra.Scope}, {@link dev.culebra.Tensor}, {@link dev.culebra.Ops}.
 */
module dev.culebra {
    requires dev.culebra.bindings;
    requires com.fasterxml.jackson.core;
    requires jdk.jfr;
    requires static transitive org.jspecify;

    exports dev.culebra;
    exports dev.culebra.io;
}
