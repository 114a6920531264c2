package dev.culebra.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.DType;
import dev.culebra.io.SafeTensors;
import dev.culebra.io.SafeTensorsWriter;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class VerifyTest {
    private static final Path CASE = Run.CASES.resolve("silu_mul/f32.safetensors");

    @TempDir
    Path folder;

    @Test
    void casesThatPass() throws IOException {
        var file = folder.resolve("results.json");
        var run = Run.of("verify", "--json", file.toString(), Run.CASES.resolve("silu_mul").toString(), CASE.toString());
        assertEquals(0, run.code(), run.out() + run.err());
        assertTrue(run.out().contains("cpu: 5 pass"), run.out());
        var results = Run.object(Files.readString(file));
        assertEquals(List.of("backend", "cases"), List.copyOf(results.keySet()));
        assertEquals("cpu", results.get("backend"));
        var cases = Run.objects(results.get("cases"));
        assertEquals(5, cases.size());
        var one = cases.getLast();
        assertEquals(List.of("case", "op", "status", "outputs", "message"), List.copyOf(one.keySet()));
        assertEquals(CASE.toString(), one.get("case"));
        assertEquals("silu_mul", one.get("op"));
        assertEquals("pass", one.get("status"));
        assertEquals("", one.get("message"));
        var y = (Map<?, ?>) ((Map<?, ?>) one.get("outputs")).get("y");
        assertEquals(List.of("metric", "value", "bound"), List.copyOf(y.keySet()));
        assertEquals("rms_ratio", y.get("metric"));
        assertTrue((double) y.get("value") <= (double) y.get("bound"));
    }

    @Test
    void aWrongResultFailsAndTheOthersStillRun() throws IOException {
        Files.copy(CASE, folder.resolve("a_right.safetensors"));
        rewrite(CASE, folder.resolve("b_wrong.safetensors"), "silu_mul", 1.5f);
        rewrite(CASE, folder.resolve("c_unknown.safetensors"), "teleport", 1);
        Files.write(folder.resolve("d_truncated.safetensors"),
                Arrays.copyOf(Files.readAllBytes(CASE), 500));
        Files.writeString(folder.resolve("e_empty.safetensors"), "");
        var file = folder.resolve("results.json");
        var run = Run.of("verify", "--json", file.toString(), folder.toString());
        assertEquals(1, run.code(), run.out());
        var cases = Run.objects(Run.object(Files.readString(file)).get("cases"));
        assertEquals(List.of("pass", "fail", "unsupported", "error", "error"),
                cases.stream().map(result -> result.get("status")).toList());
        assertTrue(cases.get(1).get("message").toString().contains("y has rms_ratio"), run.out());
        assertTrue(cases.get(3).get("message").toString().contains("d_truncated"), run.out());
    }

    @Test
    void whatTheBackendLacksIsUnsupportedAndNoFailure() throws IOException {
        rewrite(CASE, folder.resolve("unknown.safetensors"), "teleport", 1);
        var run = Run.of("verify", folder.toString());
        assertEquals(0, run.code(), run.err());
        assertTrue(run.out().contains("cpu: 1 unsupported"), run.out());
    }

    /** The same case of another operator, its expected output times a factor. */
    private static void rewrite(Path source, Path target, String op, float factor) throws IOException {
        var file = SafeTensors.open(source);
        var writer = new SafeTensorsWriter();
        file.metadata().forEach((key, value) -> writer.metadata(key, key.equals("op") ? op : value));
        for (var entry : file.entries()) {
            var copy = Arena.ofAuto().allocate(entry.data().byteSize(), 16).copyFrom(entry.data());
            if (entry.name().equals("out.y")) {
                for (var i = 0L; i < copy.byteSize() / 4; i++) {
                    copy.setAtIndex(ValueLayout.JAVA_FLOAT, i, copy.getAtIndex(ValueLayout.JAVA_FLOAT, i) * factor);
                }
            }
            writer.add(entry.name(), entry.dtype().orElse(DType.F32), entry.extents(), copy);
        }
        writer.write(target);
    }

    @Test
    void badPathsAndBackends() {
        Run.of("verify", folder.resolve("nowhere").toString()).assertError("nowhere");
        Run.of("verify", folder.toString()).assertError("no case", folder.toString());
        Run.of("verify", "--backend", "abacus", CASE.toString()).assertError("there is no backend \"abacus\"", "cpu, cuda, simt");
        Run.of("verify", "--backend", "cpu:7", CASE.toString()).assertError("7");
        Run.of("verify", "--json", folder.resolve("no/results.json").toString(), CASE.toString()).assertError("results.json");
    }
}
