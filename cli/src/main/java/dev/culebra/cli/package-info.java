/** One class per command; {@link dev.culebra.cli.Main} is the way in. */
@NullMarked
package dev.culebra.cli;

import org.jspecify.annotations.NullMarked;
