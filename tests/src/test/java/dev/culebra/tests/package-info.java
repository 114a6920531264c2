/** The suites: conformance, oracles, agreement, contract, determinism, graphs. Those tagged cuda run the same on a GPU. */
package dev.culebra.tests;
