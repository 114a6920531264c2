package dev.culebra.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.List;
import org.junit.jupiter.api.Test;

class ExplainTest {
    @Test
    void plansNameTheirDesign() throws IOException {
        var run = Run.of("explain", "--backend", "simt:1", "--json", Run.CASES.resolve("gemm").toString(),
                Run.CASES.resolve("silu_mul/f32.safetensors").toString());
        assertEquals(0, run.code(), run.err());
        var report = Run.object(run.out());
        assertEquals(List.of("backend", "plans"), List.copyOf(report.keySet()));
        var plans = Run.objects(report.get("plans"));
        assertTrue(plans.size() > 2);
        for (var plan : plans) {
            assertEquals(List.of("case", "op", "plan", "workspace_bytes"), List.copyOf(plan.keySet()));
        }
        assertTrue(plans.stream().anyMatch(plan -> plan.get("op").equals("gemm") && plan.get("plan").toString().contains("tile")), run.out());
        assertTrue(plans.stream().anyMatch(plan -> plan.get("plan").equals("the one way it has")), run.out());
    }

    @Test
    void refusalsAreTold() {
        var run = Run.of("explain", Run.CASES.resolve("gemm").toString());
        assertEquals(0, run.code(), run.err());
        assertTrue(run.out().startsWith("case"), run.out());
        Run.of("explain", "no/such/folder").assertError("no/such/folder");
        Run.of("explain", "--backend", "cray", Run.CASES.toString()).assertError("cray");
    }
}
