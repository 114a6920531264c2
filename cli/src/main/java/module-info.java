/** The command line: {@code doctor}, {@code ops}, {@code verify}, {@code explain}, {@code bench}, {@code generate}. */
module dev.culebra.cli {
    requires dev.culebra;
    requires dev.culebra.conformance;
    requires dev.culebra.inference;
    requires info.picocli;
    requires com.fasterxml.jackson.core;
    requires static org.jspecify;

    opens dev.culebra.cli to
            info.picocli;
}
