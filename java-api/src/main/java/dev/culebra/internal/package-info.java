/** What the API is made of that knows nothing about tensors. Not exported. */
@NullMarked
package dev.culebra.internal;

import org.jspecify.annotations.NullMarked;
