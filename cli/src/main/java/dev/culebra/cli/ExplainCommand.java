package dev.culebra.cli;

import dev.culebra.CulebraException;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.CaseException;
import dev.culebra.conformance.CaseFiles;
import dev.culebra.conformance.Runner;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code explain}: how operators would run on the operands of conformance cases; nothing runs. */
@Command(name = "explain", description = "Say how an operator would run on a case's operands: design, tile, split, and why.",
        mixinStandardHelpOptions = true)
final class ExplainCommand implements Callable<Integer> {
    @Option(names = "--backend", paramLabel = "B",
            description = "cpu (default), cuda, simt (plans as a GPU of compute capability 8.0), simt:1 (9.0).")
    private String backend = "cpu";

    @Option(names = "--json", description = "As a JSON object.")
    private boolean json;

    @Parameters(arity = "1..*", paramLabel = "PATH", description = "Case files, or folders that are searched recursively.")
    private List<Path> paths = List.of();

    @Spec
    private CommandSpec spec;

    /** A refusal stands in the place of a plan. */
    private record Row(Path path, String op, String plan, long workspaceBytes) {}

    @Override
    public Integer call() throws CaseException, IOException {
        var rows = new ArrayList<Row>();
        try (var runner = new Runner(backend)) {
            for (var file : CaseFiles.find(paths)) {
                rows.add(row(runner, Case.read(file)));
            }
        }
        var out = spec.commandLine().getOut();
        if (json) {
            out.println(json(rows));
        } else {
            print(rows, out);
        }
        return 0;
    }

    private static Row row(Runner runner, Case source) throws CaseException {
        try {
            var plan = runner.plan(source);
            return new Row(source.path(), source.op(), plan.text().isEmpty() ? "the one way it has" : plan.text(), plan.workspaceBytes());
        } catch (CulebraException e) {
            return new Row(source.path(), source.op(), "refused with " + e.status() + ": " + e.getMessage(), 0);
        }
    }

    private static void print(List<Row> rows, PrintWriter out) {
        var table = new Table("case", "operator", "workspace", "plan");
        for (var row : rows) {
            table.add(row.path().toString(), row.op(), Long.toString(row.workspaceBytes()), row.plan());
        }
        table.print(out);
    }

    private String json(List<Row> rows) {
        return JsonText.object(object -> {
            object.writeStringField("backend", backend);
            object.writeArrayFieldStart("plans");
            for (var row : rows) {
                object.writeStartObject();
                object.writeStringField("case", row.path().toString());
                object.writeStringField("op", row.op());
                object.writeStringField("plan", row.plan());
                object.writeNumberField("workspace_bytes", row.workspaceBytes());
                object.writeEndObject();
            }
            object.writeEndArray();
        });
    }
}
