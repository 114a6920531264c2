/**
 * What operators should give, in double precision, written to be read. {@link dev.culebra.oracles.Oracles} has them by
 * name; the conformance cases, which other implementations computed, keep them honest.
 */
package dev.culebra.oracles;
