/** A device's memory and counters as <a href="https://micrometer.io">Micrometer</a> meters. */
module dev.culebra.micrometer {
    requires transitive dev.culebra;
    requires transitive micrometer.core;
    requires static transitive org.jspecify;

    exports dev.culebra.micrometer;
}
