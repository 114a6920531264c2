package dev.culebra.bindings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.bindings.generated.culebra_h;
import java.io.IOException;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.PaddingLayout;
import java.lang.foreign.StructLayout;
import java.lang.reflect.Method;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The library that was loaded and the committed bindings are of the same headers. */
class AbiTest {
    private static final String GENERATED = culebra_h.class.getPackageName();

    @BeforeAll
    static void load() {
        NativeLibrary.load();
    }

    @Test
    void everyFunctionOfTheBindingsResolves() throws ReflectiveOperationException {
        var addresses = Arrays.stream(culebra_h.class.getMethods())
                .map(Method::getName)
                .filter(name -> name.endsWith("$address"))
                .toList();
        assertTrue(addresses.size() >= 60, "jextract's accessors have another name now: " + addresses);
        for (var name : addresses) {
            var address = (MemorySegment) culebra_h.class.getMethod(name).invoke(null);
            assertNotEquals(0, address.address(), name);
        }
    }

    @Test
    void theLibraryExportsWhatTheBindingsCallAndNothingElse() throws IOException {
        var bound = new TreeSet<String>();
        for (var method : culebra_h.class.getMethods()) {
            if (method.getName().endsWith("$address")) {
                bound.add(method.getName().replace("$address", ""));
            }
        }
        var exported = ElfSymbols.exportedFunctions(Path.of(NativeLibrary.origin()));
        assertEquals(Set.of(), without(bound, exported), "bound, but not exported");
        assertEquals(Set.of(), without(exported, bound), "exported, but not bound");
    }

    private static Set<String> without(Set<String> some, Set<String> others) {
        var left = new TreeSet<>(some);
        left.removeAll(others);
        return left;
    }

    @Test
    void everyStructHasTheLayoutThatTheLibraryReports() throws Exception {
        var reported = reportedLayouts();
        var bound = boundLayouts();
        assertEquals(bound.keySet(), reported.keySet(), "structs");
        for (var struct : bound.entrySet()) {
            assertEquals(struct.getValue(), reported.get(struct.getKey()), struct.getKey());
        }
    }

    /** Per struct, as lines {@code SIZE} and {@code NAME OFFSET SIZE}. */
    private static Map<String, List<String>> reportedLayouts() {
        var structs = new TreeMap<String, List<String>>();
        var fields = List.<String>of();
        for (var line : culebra_h.cul_abi_layout().getString(0).lines().toList()) {
            var words = line.split(" ", 3);
            switch (words[0]) {
                case "struct" -> {
                    fields = new ArrayList<>(List.of(words[2]));
                    structs.put(words[1], fields);
                }
                case "field" -> fields.add(words[1] + " " + words[2]);
                default -> throw new AssertionError("not a line of cul_abi_layout: " + line);
            }
        }
        return structs;
    }

    private static Map<String, List<String>> boundLayouts()
            throws IOException, URISyntaxException, ReflectiveOperationException {
        var structs = new TreeMap<String, List<String>>();
        var classes = Path.of(culebra_h.class.getProtectionDomain().getCodeSource().getLocation().toURI())
                .resolve(GENERATED.replace('.', '/'));
        try (var files = Files.list(classes)) {
            for (var file : files.map(f -> f.getFileName().toString()).toList()) {
                var name = file.replace(".class", "");
                if (!name.contains("culebra_h") && !name.contains("$")) {
                    var type = Class.forName(GENERATED + "." + name);
                    if (Arrays.stream(type.getMethods()).noneMatch(method -> method.getName().equals("layout"))) {
                        continue;  // a pointer to a function
                    }
                    structs.put(name, describe((StructLayout) type.getMethod("layout").invoke(null)));
                }
            }
        }
        return structs;
    }

    private static List<String> describe(StructLayout struct) {
        var lines = new ArrayList<>(List.of(Long.toString(struct.byteSize())));
        var offset = 0L;
        for (MemoryLayout member : struct.memberLayouts()) {
            if (!(member instanceof PaddingLayout)) {
                lines.add(member.name().orElseThrow() + " " + offset + " " + member.byteSize());
            }
            offset += member.byteSize();
        }
        return lines;
    }
}
