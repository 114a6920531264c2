package dev.culebra.benchmarks.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.inference.Sequence;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Every way of queueing writes the same tokens, or timing them beside each other would say nothing. */
class DecodeStepTest {
    @Test
    void everyWayWritesTheSame() {
        var written = new ArrayList<List<Integer>>();
        for (var queueing : Sequence.Queueing.values()) {
            var benchmark = new DecodeStep();
            benchmark.backend = "cpu";
            benchmark.queueing = queueing;
            benchmark.checkpoint = "../samples/kjv-hybrid-tiny/gptq-int4";
            benchmark.open();
            var host = new DecodeStep.Host();
            var tokens = new ArrayList<Integer>();
            for (var step = 0; step < 4; step++) {
                tokens.add(benchmark.step(host));
            }
            assertTrue(host.queueNanos > 0);
            assertEquals(4, host.steps);
            written.add(tokens);
            benchmark.close();
        }
        assertEquals(written.get(0), written.get(1));
        assertEquals(written.get(0), written.get(2));
    }
}
