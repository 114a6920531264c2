package dev.culebra.conformance;

import java.nio.file.Path;
import java.util.Map;

/**
 * What a case came to.
 *
 * @param path its file
 * @param op the operator; empty where the file does not say
 * @param verdict pass, fail, unsupported, error
 * @param outputs each output's comparison, the worst over all runs
 * @param message what is wrong; empty where nothing is
 * @param nanoseconds all runs together
 */
public record CaseResult(
        Path path, String op, Verdict verdict, Map<String, Comparison> outputs, String message, long nanoseconds) {}
