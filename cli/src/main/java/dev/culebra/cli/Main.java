package dev.culebra.cli;

import dev.culebra.CulebraException;
import dev.culebra.Device;
import dev.culebra.LibraryException;
import java.io.PrintWriter;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.Option;
import picocli.CommandLine.ScopeType;

/** The command {@code culebra}. Exit codes: 0, 1 for a failure, 2 for wrong usage. */
@Command(
        name = "culebra",
        description = "Native inference kernels for the JVM.",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        synopsisSubcommandLabel = "COMMAND",
        subcommands = {
            GenerateCommand.class,
            DoctorCommand.class,
            OpsCommand.class,
            VerifyCommand.class,
            ExplainCommand.class,
            BenchCommand.class,
            NeighborhoodBoundCommand.class
        })
public final class Main implements Runnable {
    @Option(names = "--debug", description = "Show the stack trace of an error.", scope = ScopeType.INHERIT)
    private boolean debug;

    @CommandLine.Spec
    private CommandLine.Model.CommandSpec spec;

    /** Runs a command and exits with its code. */
    public static void main(String[] args) {
        System.exit(run(new PrintWriter(System.out, true), new PrintWriter(System.err, true), args));
    }

    static int run(PrintWriter out, PrintWriter err, String... args) {
        var main = new Main();
        var command = new CommandLine(main)
                .setOut(out)
                .setErr(err)
                .setExecutionExceptionHandler((exception, failed, parsed) -> main.report(exception, err));
        try {
            return command.execute(args);
        } catch (LinkageError | OutOfMemoryError e) {  // picocli hands over exceptions alone
            return main.report(e, err);
        }
    }

    private int report(Throwable failure, PrintWriter err) {
        if (debug) {
            failure.printStackTrace(err);
        } else {
            err.println("error: " + message(failure));
        }
        err.flush();
        return CommandLine.ExitCode.SOFTWARE;
    }

    /** One line: what the exception says, or what it is where it says nothing that people would understand. */
    private static String message(Throwable failure) {
        if (failure instanceof ExceptionInInitializerError && failure.getCause() != null) {
            return message(failure.getCause());
        }
        var text = failure.getMessage();
        var known = failure instanceof CulebraException || failure instanceof CommandException
                || failure.getClass().getName().startsWith("dev.culebra");
        return (text == null || !known ? failure.toString() : text).replaceAll("\\s*\\R\\s*", "; ");
    }

    @Override
    public void run() {
        throw new CommandLine.ParameterException(spec.commandLine(), "Which command?");
    }

    /** The command line's version, and the native library's where it can be loaded. */
    static final class Version implements IVersionProvider {
        @Override
        public String[] getVersion() {
            var descriptor = Main.class.getModule().getDescriptor();
            var own = "culebra " + (descriptor == null ? "" : descriptor.rawVersion().orElse(""));
            try {
                return new String[] {own, "libculebra " + Device.library()};
            } catch (LibraryException e) {
                return new String[] {own, "libculebra could not be loaded; see culebra doctor"};
            }
        }
    }
}
