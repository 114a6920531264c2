package dev.culebra.cli;

import dev.culebra.conformance.CaseException;
import dev.culebra.conformance.CaseFiles;
import dev.culebra.conformance.CaseResult;
import dev.culebra.conformance.Runner;
import dev.culebra.conformance.Verdict;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code verify}: runs conformance cases. */
@Command(name = "verify", description = "Run conformance cases and compare their results.", mixinStandardHelpOptions = true)
final class VerifyCommand implements Callable<Integer> {
    @Option(names = "--backend", paramLabel = "B", description = "cpu (default), cuda, simt, or one of several: cuda:1.")
    private String backend = "cpu";

    @Option(names = "--json", paramLabel = "FILE", description = "Write the results to this file, too.")
    private @Nullable Path json;

    @Parameters(arity = "1..*", paramLabel = "PATH", description = "Case files, or folders that are searched recursively.")
    private List<Path> paths = List.of();

    @Spec
    private CommandSpec spec;

    @Override
    public Integer call() throws CaseException, IOException {
        var files = CaseFiles.find(paths);
        if (json != null && !Files.isDirectory(json.toAbsolutePath().getParent())) {
            throw new CommandException("there is no folder for the file " + json);
        }
        var results = new ArrayList<CaseResult>();
        try (var runner = new Runner(backend); var progress = new Progress(spec.commandLine().getErr(), files.size())) {
            for (var file : files) {
                progress.step(file.toString());
                results.add(runner.run(file));
            }
        }
        if (json != null) {
            Files.writeString(json, json(results) + "\n");
        }
        print(results, spec.commandLine().getOut());
        var bad = results.stream().anyMatch(result -> result.verdict() == Verdict.FAIL || result.verdict() == Verdict.ERROR);
        return bad ? 1 : 0;
    }

    private void print(List<CaseResult> results, PrintWriter out) {
        var table = new Table("case", "status", "figures (bound)", "");
        var counts = new EnumMap<Verdict, Integer>(Verdict.class);
        for (var result : results) {
            counts.merge(result.verdict(), 1, Integer::sum);
            var figures = result.outputs().entrySet().stream()
                    .map(output -> String.format(Locale.ROOT, "%s %.2g (%.2g)",
                            output.getKey(), output.getValue().value(), output.getValue().check().bound()))
                    .collect(Collectors.joining(", "));
            table.add(result.path().toString(), result.verdict().toString(), figures, result.message());
        }
        table.print(out);
        out.println();
        out.println(backend + ": " + counts.entrySet().stream()
                .map(count -> count.getValue() + " " + count.getKey())
                .collect(Collectors.joining(", ")));
    }

    private String json(List<CaseResult> results) {
        return JsonText.object(json -> {
            json.writeStringField("backend", backend);
            json.writeArrayFieldStart("cases");
            for (var result : results) {
                json.writeStartObject();
                json.writeStringField("case", result.path().toString());
                json.writeStringField("op", result.op());
                json.writeStringField("status", result.verdict().toString());
                json.writeObjectFieldStart("outputs");
                for (var output : result.outputs().entrySet()) {
                    json.writeObjectFieldStart(output.getKey());
                    json.writeStringField("metric", output.getValue().check().metric().toString());
                    JsonText.number(json, "value", output.getValue().value());
                    JsonText.number(json, "bound", output.getValue().check().bound());
                    json.writeEndObject();
                }
                json.writeEndObject();
                json.writeStringField("message", result.message());
                json.writeEndObject();
            }
            json.writeEndArray();
        });
    }
}
