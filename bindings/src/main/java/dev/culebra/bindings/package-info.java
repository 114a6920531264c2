/** Loading of the native library, and what of its interface is not generated. */
@NullMarked
package dev.culebra.bindings;

import org.jspecify.annotations.NullMarked;
