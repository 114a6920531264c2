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
 */
public record OpInfo(String name, String family, Set<Backend> backends, List<String> dtypes) {}
