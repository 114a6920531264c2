package dev.culebra.tests;

import com.fasterxml.jackson.core.JsonFactory;
import java.io.IOException;
import java.io.StringWriter;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.TagFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.TestPlan;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/**
 * Runs the suites of this jar that have a tag, on a machine with nothing but a Java runtime: {@code RunTagged TAG [--json FILE]}.
 * A skipped test counts as a failure, and so does an empty run. Exit code 1 on any.
 */
public final class RunTagged {
    private RunTagged() {}

    /** One test: its place, and why it failed; null: it passed. */
    private record Outcome(String name, String failure, double seconds) {}

    public static void main(String[] args) throws IOException, URISyntaxException {
        if (args.length != 1 && !(args.length == 3 && args[1].equals("--json"))) {
            System.err.println("usage: RunTagged TAG [--json FILE]");
            System.exit(2);
        }
        var here = Path.of(RunTagged.class.getProtectionDomain().getCodeSource().getLocation().toURI());
        var request = LauncherDiscoveryRequestBuilder.request()
                .selectors(DiscoverySelectors.selectClasspathRoots(Set.of(here)))
                .filters(TagFilter.includeTags(args[0]))
                .build();
        var outcomes = new ArrayList<Outcome>();
        LauncherFactory.create().execute(request, new Recorder(outcomes));
        var failures = outcomes.stream().filter(outcome -> outcome.failure() != null).toList();
        if (args.length == 3) {
            Files.writeString(Path.of(args[2]), json(args[0], outcomes) + "\n");
        }
        failures.forEach(outcome -> System.out.println("FAILED " + outcome.name() + ": " + outcome.failure()));
        System.out.println(args[0] + ": " + (outcomes.size() - failures.size()) + " passed, " + failures.size() + " failed");
        System.exit(failures.isEmpty() && !outcomes.isEmpty() ? 0 : 1);
    }

    private static final class Recorder implements TestExecutionListener {
        private final List<Outcome> outcomes;
        private TestPlan plan;
        private long begin;

        Recorder(List<Outcome> outcomes) {
            this.outcomes = outcomes;
        }

        @Override
        public void testPlanExecutionStarted(TestPlan started) {
            plan = started;
        }

        @Override
        public void executionStarted(TestIdentifier test) {
            begin = System.nanoTime();
        }

        @Override
        public void executionSkipped(TestIdentifier test, String reason) {
            outcomes.add(new Outcome(name(test), "skipped: " + reason, 0));
        }

        @Override
        public void executionFinished(TestIdentifier test, TestExecutionResult result) {
            var failure = result.getThrowable().map(Throwable::toString).orElse(null);
            if (result.getStatus() == TestExecutionResult.Status.ABORTED) {
                failure = "skipped: " + failure;
            }
            if (test.isTest() || failure != null) {
                outcomes.add(new Outcome(name(test), failure, (System.nanoTime() - begin) / 1e9));
            }
        }

        private String name(TestIdentifier test) {
            var parent = plan.getParent(test);
            return parent.isEmpty() || parent.get().getParentId().isEmpty() ? test.getDisplayName()
                    : name(parent.get()) + " > " + test.getDisplayName();
        }
    }

    private static String json(String tag, List<Outcome> outcomes) throws IOException {
        var text = new StringWriter();
        try (var json = new JsonFactory().createGenerator(text)) {
            json.useDefaultPrettyPrinter();
            json.writeStartObject();
            json.writeStringField("tag", tag);
            json.writeNumberField("failed", outcomes.stream().filter(outcome -> outcome.failure() != null).count());
            json.writeArrayFieldStart("tests");
            for (var outcome : outcomes) {
                json.writeStartObject();
                json.writeStringField("test", outcome.name());
                json.writeStringField("status", outcome.failure() == null ? "pass" : "fail");
                json.writeStringField("message", outcome.failure() == null ? "" : outcome.failure());
                json.writeNumberField("seconds", outcome.seconds());
                json.writeEndObject();
            }
            json.writeEndArray();
            json.writeEndObject();
        }
        return text.toString();
    }
}
