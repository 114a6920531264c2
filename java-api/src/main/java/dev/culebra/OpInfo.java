package dev.culebra;

import java.util.List;
import java.util.Set;

/**
 * One operator of the native library.
 *
 * @param name as in {@code rms_norm}
 * @param family the family it belongs to
 * @param backends those that have it
 * @param dtypes the element types of its principal operand, by name
 * @param computeCapabilities those that it has CUDA kernels of its own for: {@code 8.0} (and newer), {@code 9.0}
 */
public record OpInfo(String name, String family, Set<Backend> backends, List<String> dtypes, List<String> computeCapabilities) {}
