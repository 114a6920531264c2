package dev.culebra.conformance;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.DType;
import dev.culebra.DeviceOptions;
import dev.culebra.Ops;
import dev.culebra.Status;
import dev.culebra.Tensor;
import dev.culebra.tests.CaseBuilder;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BiConsumer;
import java.util.function.DoubleSupplier;
import org.junit.jupiter.api.Test;

/** The runner sees what it is there to see: each defect is planted in an operator that is otherwise right. */
class PlantedDefectTest {
    private static final int ROWS = 3;
    private static final int WIDTH = 20;

    private static Case siluMul() {
        return new CaseBuilder("silu_mul", 1).normal("gate", DType.F32, 1, ROWS, WIDTH).normal("up", DType.F32, 1, ROWS, WIDTH)
                .build(DType.F32);
    }

    private static Case argmax() {
        return new CaseBuilder("argmax", 1).normal("x", DType.F32, 1, ROWS, WIDTH).build(DType.F32);
    }

    private static CaseResult run(Case source, Binding binding) {
        try (var runner = new Runner("cpu", DeviceOptions.DEFAULT, Map.of(source.op(), binding))) {
            return runner.run(source);
        }
    }

    private static void assertFound(Case source, Binding binding, Verdict verdict, String... fragments) {
        var result = run(source, binding);
        assertEquals(verdict, result.verdict(), result.message());
        for (var fragment : fragments) {
            assertTrue(result.message().contains(fragment), () -> "\"" + fragment + "\" is missing in: " + result.message());
        }
    }

    /** A binding that does what it should, and then something else with the output. */
    private static Binding after(BiConsumer<Call, Tensor> defect) {
        return call -> {
            var y = call.out("y", DType.F32, ROWS, WIDTH);
            Ops.siluMul(call.stream(), call.in("gate"), call.in("up"), y);
            defect.accept(call, y);
        };
    }

    /** A binding whose result is off by a factor. */
    private static Binding times(DoubleSupplier factor) {
        return call -> {
            var y = call.out("y", DType.F32, ROWS, WIDTH);
            var right = call.scope().allocate(DType.F32, ROWS, WIDTH);
            Ops.siluMul(call.stream(), call.in("gate"), call.in("up"), right);
            Ops.scale(call.stream(), right, y, (float) factor.getAsDouble());
        };
    }

    @Test
    void withoutADefectItPasses() {
        var result = run(siluMul(), after((call, y) -> {}));
        assertEquals(Verdict.PASS, result.verdict(), result.message());
        assertTrue(result.outputs().get("y").value() < 1e-6);
    }

    @Test
    void aWrongValue() {
        assertFound(siluMul(), times(() -> 1.0001), Verdict.FAIL, "y has rms_ratio");
    }

    @Test
    void oneElementIsNaN() {
        assertFound(siluMul(), after((call, y) -> y.slice(0, 2, 3).slice(1, 5, 6).fill(call.stream(), 0xFF)),
                Verdict.FAIL, "y is NaN at [2, 5]");
    }

    @Test
    void aWriteBeforeTheTensor() {
        assertFound(siluMul(), after((call, y) -> call.output("y").whole().slice(0, 0, 1).zero(call.stream())),
                Verdict.FAIL, "y: byte -256 was written, outside of the tensor");
    }

    @Test
    void aWriteBehindTheTensor() {
        assertFound(siluMul(), after((call, y) -> {
            var whole = call.output("y").whole();
            whole.slice(0, whole.elements() - 1, whole.elements()).zero(call.stream());
        }), Verdict.FAIL, "was written, outside of the tensor");
    }

    @Test
    void aWriteBetweenPaddedRows() {
        assertFound(siluMul(), after((call, y) -> {
            if (y.stride(0) > WIDTH) {
                call.output("y").whole().slice(0, 64 + WIDTH, 64 + WIDTH + 1).zero(call.stream());
            }
        }), Verdict.FAIL, "y: byte 80 was written, outside of the tensor");
    }

    @Test
    void stridesThatAreIgnored() {
        assertFound(siluMul(), call -> {
            var y = call.out("y", DType.F32, ROWS, WIDTH);
            var packed = call.output("y").whole().slice(0, 64, 64 + ROWS * WIDTH).reshape(ROWS, WIDTH);
            Ops.siluMul(call.stream(), call.in("gate"), call.in("up"), y.isContiguous() ? y : packed);
        }, Verdict.FAIL, "padded", "outside of the tensor");
    }

    @Test
    void theStrideOfAnotherTensor() {
        assertFound(siluMul(), call -> {
            var gate = call.in("gate");
            call.out("y", DType.F32, ROWS, WIDTH);
            var stride = gate.stride(0);
            var mistaken = call.output("y").whole().slice(0, 64, 64 + ROWS * stride).reshape(ROWS, stride).slice(1, 0, WIDTH);
            Ops.siluMul(call.stream(), gate, call.in("up"), mistaken);
        }, Verdict.FAIL, "padded", "outside of the tensor");
    }

    @Test
    void anElementThatIsNotWritten() {
        assertFound(argmax(), call -> {
            var ids = call.out("ids", DType.I32, ROWS);
            Ops.argmax(call.stream(), call.in("x").slice(0, 0, ROWS - 1), ids.slice(0, 0, ROWS - 1));
        }, Verdict.FAIL, "ids is not written at [2]");
    }

    @Test
    void anInputThatIsWritten() {
        assertFound(siluMul(), after((call, y) -> call.in("up").select(0, 1).slice(0, 0, 1).zero(call.stream())),
                Verdict.FAIL, "up: byte 80 of", "was written");
    }

    @Test
    void bitsThatDifferFromRunToRun() {
        var runs = new AtomicInteger();
        assertFound(siluMul(), times(() -> 1 + 2e-7 * runs.getAndIncrement()),
                Verdict.FAIL, "y differs from run to run");
    }

    @Test
    void memoryThatIsNotGivenBack() {
        assertFound(siluMul(), after((call, y) -> call.stream().device().openScope().allocate(DType.U8, 1000)),
                Verdict.FAIL, "allocations were not given back");
    }

    @Test
    void aRowThatMustBeExact() {
        var exact = siluMul();
        var strict = new Case(exact.path(), exact.op(), "", exact.attributes(), exact.inputs(), exact.outputs(), exact.checks(),
                Map.of("y", List.of(new long[] {1})), null, null);
        assertFound(strict, times(() -> 1 + 1e-6), Verdict.FAIL, "where it must be exactly");
    }

    private static Case refused(Status status) {
        var source = siluMul();
        return new Case(source.path(), source.op(), "", Map.of(), source.inputs(), Map.of(), Map.of(), Map.of(), null, status);
    }

    private static void refuse(Call call) {
        Ops.siluMul(call.stream(), call.in("gate"), call.in("up").slice(1, 0, 8), call.out("y", DType.F32, ROWS, WIDTH));
    }

    @Test
    void refusals() {
        assertFound(refused(Status.SHAPE), PlantedDefectTest::refuse, Verdict.PASS);
        assertFound(refused(Status.DTYPE), PlantedDefectTest::refuse, Verdict.FAIL, "refused with SHAPE instead of DTYPE");
        assertFound(refused(Status.SHAPE), after((call, y) -> {}), Verdict.FAIL, "was accepted, but must be refused with SHAPE");
        assertFound(refused(Status.SHAPE), call -> {
            call.out("sum", DType.F32, 4).zero(call.stream());
            refuse(call);
        }, Verdict.FAIL, "sum: byte 0 of", "was written");
    }

    @Test
    void aLegalCallThatIsRefused() {
        assertFound(siluMul(), PlantedDefectTest::refuse, Verdict.FAIL, "refused with SHAPE");
    }

    @Test
    void whatIsMissingNeverPasses() {
        var source = siluMul();
        var unknown = new Case(source.path(), "no_such_operator", "", Map.of(), source.inputs(), source.outputs(), source.checks(),
                Map.of(), null, null);
        assertEquals(Verdict.UNSUPPORTED, run(unknown, call -> {}).verdict());
        var odd = new Case(source.path(), source.op(), "", Map.of("alpha", 2L), source.inputs(), source.outputs(),
                source.checks(), Map.of(), null, null);
        assertFound(odd, after((call, y) -> {}), Verdict.ERROR, "no use for alpha");
        assertFound(source, call -> {
            call.in("gate");
            call.in("up");
        }, Verdict.ERROR, "gets no output y");
    }
}
