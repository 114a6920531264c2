/** Files of tensors. */
@NullMarked
package dev.culebra.io;

import org.jspecify.annotations.NullMarked;
