package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.DynamicContainer.dynamicContainer;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.culebra.conformance.Case;
import dev.culebra.conformance.CaseException;
import dev.culebra.conformance.CaseFiles;
import dev.culebra.conformance.Runner;
import dev.culebra.conformance.Verdict;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.DynamicNode;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;

/** Every public case of the operators that a backend declares; one that does not run is a failure. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class ConformanceSuite {
    private final List<Runner> runners = new ArrayList<>();

    abstract List<String> backends();

    @TestFactory
    Stream<DynamicNode> cases() throws CaseException {
        var files = CaseFiles.find(List.of(Backends.cases()));
        var cases = new ArrayList<Case>();
        for (var file : files) {
            cases.add(Case.read(file));
        }
        return backends().stream().map(backend -> {
            var runner = new Runner(backend);
            runners.add(runner);
            var declared = Backends.operators(backend);
            return dynamicContainer(backend, cases.stream()
                    .filter(source -> declared.contains(source.op()))
                    .map(source -> dynamicTest(source.path().toString(), () -> {
                        var result = runner.run(source);
                        assertEquals(Verdict.PASS, result.verdict(), () -> source.path() + ": " + result.message());
                    })));
        });
    }

    @Test
    void everyBackendHasWhatItMust() {
        for (var backend : backends()) {
            var missing = Backends.declared("cpu");
            missing.removeAll(Backends.declared(backend.replaceFirst(":.*", "")));
            assertEquals(Set.of(), missing, () -> backend + " lacks these");
        }
    }

    @AfterAll
    void close() {
        runners.forEach(Runner::close);
    }
}
