/** Conformance cases and the runner that the command line and the test suites share: {@link dev.culebra.conformance.Runner}. */
module dev.culebra.conformance {
    requires transitive dev.culebra;
    requires com.fasterxml.jackson.core;
    requires static transitive org.jspecify;

    exports dev.culebra.conformance;
}
