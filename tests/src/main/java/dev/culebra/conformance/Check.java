package dev.culebra.conformance;

/**
 * How an output is compared.
 *
 * @param metric what is measured
 * @param bound the largest value that passes
 */
public record Check(Metric metric, double bound) {}
