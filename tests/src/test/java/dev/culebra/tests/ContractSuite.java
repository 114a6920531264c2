package dev.culebra.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicContainer.dynamicContainer;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.culebra.CulebraException;
import dev.culebra.DType;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicNode;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;

/** Bad calls: the exact class, the status, a message that names the operator, the operands and the numbers. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class ContractSuite {
    abstract List<String> backends();

    /** One bad call; its message begins with {@code refuser}, {@code fragments} are parts of it. */
    record BadCall(String refuser, String op, String fault, Refused refused, List<String> fragments, Consumer<TestDevice> call) {}

    @TestFactory
    Stream<DynamicNode> badCalls() {
        return backends().stream().map(backend -> {
            var declared = Backends.operators(backend);
            return dynamicContainer(backend, BadCalls.all().stream()
                    .filter(bad -> declared.contains(bad.op()))
                    .map(bad -> dynamicTest(bad.op() + ": " + bad.fault(), () -> refuse(backend, bad))));
        });
    }

    private static void refuse(String backend, BadCall bad) {
        try (var on = new TestDevice(backend)) {
            var refused = assertThrows(CulebraException.class, () -> bad.call().accept(on));
            assertEquals(bad.refused().exception(), refused.getClass(), refused.getMessage());
            assertEquals(bad.refused().status(), refused.status(), refused.getMessage());
            assertEquals(on.device.backend(), refused.backend());
            var message = String.valueOf(refused.getMessage());
            assertTrue(message.startsWith(bad.refuser() + ": "), message);
            for (var fragment : bad.fragments()) {
                assertTrue(message.contains(fragment), () -> "\"" + fragment + "\" is missing in: " + message);
            }
            // Nothing of it was queued, and the stream goes on.
            on.zeros(DType.F32, 4);
            on.stream.synchronize();
        }
    }
}
