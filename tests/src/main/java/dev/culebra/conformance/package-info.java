/**
 * Conformance: cases from independent references, run on a device and compared. A case is one safetensors file; its inputs
 * become tensors between guard bands, {@link dev.culebra.conformance.Bindings} says which call they make, {@link
 * dev.culebra.conformance.Metric} compares the results.
 */
@NullMarked
package dev.culebra.conformance;

import org.jspecify.annotations.NullMarked;
