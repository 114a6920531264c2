package dev.culebra.cli;

import dev.culebra.Backend;
import dev.culebra.OpInfo;
import dev.culebra.Ops;
import java.io.PrintWriter;
import java.util.Comparator;
import java.util.List;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code ops}: operator x backend x element types, as the library declares them. */
@Command(name = "ops", description = "List the operators, the backends that have them, and their element types.",
        mixinStandardHelpOptions = true)
final class OpsCommand implements Runnable {
    /** Of all backends, those that users choose between, in the README's order. */
    private static final List<Backend> COLUMNS = List.of(Backend.CPU, Backend.SIMT, Backend.CUDA);

    static final class Form {
        @Option(names = "--json", description = "As a JSON object.")
        boolean json;

        @Option(names = "--markdown", description = "As the table of the README.")
        boolean markdown;
    }

    @ArgGroup
    private Form form = new Form();

    @Spec
    private CommandSpec spec;

    @Override
    public void run() {
        var ops = Ops.list().stream().sorted(Comparator.comparing(OpInfo::family).thenComparing(OpInfo::name)).toList();
        var out = spec.commandLine().getOut();
        if (form.json) {
            out.println(json(ops));
        } else {
            print(ops, out);
        }
    }

    private void print(List<OpInfo> ops, PrintWriter out) {
        var table = new Table("operator", "family", "cpu", "simt", "cuda", "dtypes");
        for (var op : ops) {
            var marks = COLUMNS.stream().map(backend -> op.backends().contains(backend) ? "yes" : "").toList();
            var name = form.markdown ? "`" + op.name() + "`" : op.name();
            table.add(name, op.family(), marks.get(0), marks.get(1), marks.get(2), String.join(" ", op.dtypes()));
        }
        if (form.markdown) {
            table.printMarkdown(out);
        } else {
            table.print(out);
        }
    }

    private static String json(List<OpInfo> ops) {
        return JsonText.object(json -> {
            json.writeArrayFieldStart("ops");
            for (var op : ops) {
                json.writeStartObject();
                json.writeStringField("op", op.name());
                json.writeStringField("family", op.family());
                json.writeObjectFieldStart("backends");
                for (var backend : COLUMNS) {
                    json.writeBooleanField(backend.toString(), op.backends().contains(backend));
                }
                json.writeEndObject();
                json.writeArrayFieldStart("dtypes");
                for (var dtype : op.dtypes()) {
                    json.writeString(dtype);
                }
                json.writeEndArray();
                json.writeArrayFieldStart("compute_capabilities");
                for (var capability : op.computeCapabilities()) {
                    json.writeString(capability);
                }
                json.writeEndArray();
                json.writeEndObject();
            }
            json.writeEndArray();
        });
    }
}
