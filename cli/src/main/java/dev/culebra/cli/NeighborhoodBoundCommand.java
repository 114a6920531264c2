package dev.culebra.cli;

import dev.culebra.NeighborhoodBound;
import dev.culebra.NeighborhoodOptions;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code neighborhood-bound}: what neighborhood attention can gain over dense attention. */
@Command(
        name = "neighborhood-bound",
        description = "Count the tiles that neighborhood attention visits, and so the bound of its speed-up over dense attention.",
        footer = "One number per axis, as in 30x48x80.",
        mixinStandardHelpOptions = true)
final class NeighborhoodBoundCommand implements Runnable {
    @Option(names = "--size", required = true, description = "Tokens of each axis.")
    private String size = "";

    @Option(names = "--window", required = true, description = "Keys that a query sees on each axis.")
    private String window = "";

    @Option(names = "--stride", description = "Queries that share a window; without it 1.")
    private @Nullable String stride;

    @Option(names = "--dilation", description = "Distance of neighbours; without it 1.")
    private @Nullable String dilation;

    @Option(names = "--causal", description = "true or false for each axis, as in truexfalse; without it false.")
    private @Nullable String causal;

    @Option(names = "--query-tile", description = "Queries of a tile; without it 128, 16x8 or 4x4x8.")
    private @Nullable String queryTile;

    @Option(names = "--key-tile", description = "Keys of a tile; without it as --query-tile.")
    private @Nullable String keyTile;

    @Spec
    private CommandSpec spec;

    @Override
    public void run() {
        var lengths = list("--size", size, Integer::valueOf, 0);
        var axes = lengths.size();
        if (axes > 3) {
            throw new CommandLine.ParameterException(spec.commandLine(), "--size has " + axes + " axes; at most 3");
        }
        var options = new NeighborhoodOptions(
                list("--window", window, Integer::valueOf, axes),
                list("--stride", stride, Integer::valueOf, axes),
                list("--dilation", dilation, Integer::valueOf, axes),
                list("--causal", causal, Boolean::valueOf, axes),
                0);
        var queries = queryTile == null ? List.of(List.of(128), List.of(16, 8), List.of(4, 4, 8)).get(axes - 1)
                : list("--query-tile", queryTile, Integer::valueOf, axes);
        var keys = keyTile == null ? queries : list("--key-tile", keyTile, Integer::valueOf, axes);
        var bound = NeighborhoodBound.of(lengths, options, queries, keys);
        spec.commandLine().getOut().printf(Locale.ROOT, "%.0f of %.0f pairs of tiles are visited: at most %.2f times as fast as all of them%n",
                bound.visited(), bound.all(), bound.speedUp());
    }

    /** The numbers of {@code text}, one per axis; none where it is null. axes 0: as many as there are. */
    private <T> List<T> list(String option, @Nullable String text, Function<String, T> parse, int axes) {
        if (text == null) {
            return Collections.emptyList();
        }
        var values = new ArrayList<T>();
        try {
            Arrays.stream(text.split("x")).map(parse).forEach(values::add);
        } catch (NumberFormatException e) {
            throw new CommandLine.ParameterException(spec.commandLine(), option + " is " + text + "; it is written like 30x48x80");
        }
        if (axes > 0 && values.size() != axes) {
            throw new CommandLine.ParameterException(spec.commandLine(),
                    option + " has " + values.size() + " numbers, but --size has " + axes);
        }
        return values;
    }
}
