package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.bindings.generated.culebra_h;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Modules that users bring: loaded, called, captured, closed; through the test driver where there is no GPU. */
@SuppressWarnings("try") // closed twice, or held open only
class CudaModuleTest {
    private static final String BACKENDS = "dev.culebra.TestDriver#backends";
    private static final Path AXPY = TestDriver.file("tests/native/axpy.ptx");

    @BeforeAll
    static void useDriver() {
        TestDriver.use();
    }

    @AfterAll
    static void removeDriver() {
        TestDriver.remove();
    }

    private static KernelCall axpy(CudaModule module, Tensor y, Tensor x, float a) {
        return module.kernel("axpy").prepare().block(32, 1, 1).set(0, y).set(1, x).set(2, (int) y.elements()).set(3, a);
    }

    @ParameterizedTest
    @MethodSource(BACKENDS)
    void aKernelRunsInStreamOrderAndInGraphs(String backend) throws IOException {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope();
                var module = CudaModule.load(device, AXPY)) {
            var x = scope.floats(stream, new float[] {1, 2, 3}, 3);
            var y = scope.zeros(stream, DType.F32, 3);
            Ops.add(stream, x, x, y);
            var call = axpy(module, y, x, 0.5f);
            call.launch(stream);
            assertArrayEquals(new float[] {2.5f, 5, 7.5f}, y.floats(stream), "behind the addition");
            try (var graph = stream.capture(() -> {
                call.launch(stream);
                call.set(3, 2f).launch(stream);
            })) {
                assertArrayEquals(new float[] {2.5f, 5, 7.5f}, y.floats(stream), "captured work does not run");
                call.set(3, 1000f); // the graph has its own copies
                graph.launch(stream);
                graph.launch(stream);
                assertArrayEquals(new float[] {7.5f, 15, 22.5f}, y.floats(stream));
                module.close();
                var error = assertThrows(ClosedException.class, () -> graph.launch(stream));
                assertTrue(error.getMessage().contains("axpy.ptx"), error.getMessage());
            }
        }
    }

    @ParameterizedTest
    @MethodSource(BACKENDS)
    void badCallsAreRefusedBeforeTheDriver(String backend) throws IOException {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope();
                var module = CudaModule.load(device, AXPY); var other = Device.open("cpu"); var far = other.openStream()) {
            var x = scope.zeros(stream, DType.F32, 3);
            stream.synchronize();
            var kernel = module.kernel("axpy");
            assertEquals(4, kernel.parameters());
            assertEquals(4, kernel.parameterBytes(3));
            var call = axpy(module, x, x, 1);
            log(backend);
            refused(Status.RANGE, "no kernel \"saxpy\"; it has axpy", () -> module.kernel("saxpy"));
            log(backend);
            refused(Status.DTYPE, "parameter 0 has 8 bytes but an int has 4", () -> kernel.prepare().set(0, 1));
            refused(Status.DTYPE, "parameter 2 has 4 bytes but a tensor's address has 8", () -> kernel.prepare().set(2, x));
            refused(Status.DTYPE, "a double has 8", () -> kernel.prepare().set(3, 1.0));
            refused(Status.RANGE, "no parameter 4; the kernel declares 4", () -> kernel.prepare().set(4, 1));
            refused(Status.NULL_POINTER, "argument 1 was not set; the kernel takes 4",
                    () -> kernel.prepare().set(0, x).launch(stream));
            refused(Status.RANGE, "the grid is [0, 1, 1]", () -> call.grid(0, 1, 1).launch(stream));
            refused(Status.RANGE, "grid is -1", () -> call.grid(1, -1, 1));
            refused(Status.RANGE, "[1, 65536, 1]", () -> call.grid(1, 65536, 1).launch(stream));
            refused(Status.RANGE, "at most 1024 threads", () -> call.grid(1, 1, 1).block(1024, 2, 1).launch(stream));
            call.block(32, 1, 1);
            refused(Status.RANGE, "of dynamic shared memory", () -> call.shared(1 << 20).launch(stream));
            call.shared(0);
            refused(Status.DEVICE, "is on another device than the stream", () -> call.launch(far));
            if (device.info().computeMajor() < 9) {
                assertEquals(Status.ARCH, assertThrows(UnsupportedException.class,
                        () -> call.cluster(2, 1, 1).launch(stream)).status());
                call.cluster(0, 0, 0);
                assertEquals(Status.ARCH,
                        assertThrows(UnsupportedException.class, () -> call.dependent(true).launch(stream)).status());
                call.dependent(false);
            }
            assertEquals("", log(backend), "nothing reached the driver");
            call.launch(stream);
            x.close();
            var error = assertThrows(ClosedException.class, () -> call.launch(stream));
            assertTrue(error.getMessage().contains("argument 0"), error.getMessage());
            module.close();
            module.close();
            assertTrue(module.isClosed());
            assertThrows(ClosedException.class, () -> call.launch(stream));
            assertThrows(ClosedException.class, () -> module.kernel("axpy"));
            assertThrows(ClosedException.class, module::log);
        }
    }

    private static void refused(Status status, String part, org.junit.jupiter.api.function.Executable call) {
        var error = assertThrows(ArgumentException.class, call);
        assertEquals(status, error.status(), error.getMessage());
        assertTrue(error.getMessage().contains(part), error.getMessage());
    }

    private static String log(String backend) {
        return backend.equals("simt") ? TestDriver.log() : "";
    }

    @Test
    void anImageIsLoadedOncePerDevice() throws IOException {
        try (var device = Device.open("simt"); var other = Device.open("simt:1"); var stream = device.openStream();
                var scope = device.openScope()) {
            TestDriver.log();
            var first = CudaModule.load(device, AXPY);
            var second = CudaModule.load(device, Files.readAllBytes(AXPY));
            var third = CudaModule.load(other, AXPY);
            assertEquals(2, count(TestDriver.log(), "cuModuleLoadDataEx"));
            var x = scope.zeros(stream, DType.F32, 3);
            var call = axpy(second, x, x, 1);
            first.close();
            call.launch(stream);
            assertEquals(0, count(TestDriver.log(), "cuModuleUnload"));
            second.close();
            stream.synchronize();
            assertEquals(1, count(TestDriver.log(), "cuModuleUnload"), "when the stream had passed its last launch");
            assertThrows(ClosedException.class, () -> call.launch(stream));
            CudaModule.load(device, AXPY);
            assertEquals(1, count(TestDriver.log(), "cuModuleLoadDataEx"));
            assertFalse(third.isClosed());
            other.close();
            assertTrue(third.isClosed());
        }
        assertEquals(2, count(TestDriver.log(), "cuModuleUnload"), "the devices closed what was left open");
    }

    private static long count(String log, String call) {
        return log.lines().filter(line -> line.startsWith(call)).count();
    }

    @ParameterizedTest
    @MethodSource(BACKENDS)
    void anyDriverCallMayFail(String backend) {
        try (var device = Device.open(backend)) {
            var failures = 0;
            for (var calls = 0; calls < 40; calls++) {
                culebra_h.cul_testing_fail_after(calls);
                try {
                    session(device);
                } catch (MemoryException e) {
                    failures++;
                } finally {
                    culebra_h.cul_testing_fail_after(-1);
                }
                assertEquals(0, device.memory().statistics().liveAllocations());
                device.memory().trim(0);
                session(device);
            }
            assertTrue(failures >= 13, failures + " failures");
        }
        if (backend.equals("simt")) {
            var log = TestDriver.log();
            assertEquals(count(log, "cuModuleLoadDataEx"), count(log, "cuModuleUnload"));
        }
    }

    private static void session(Device device) {
        try (var stream = device.openStream(); var scope = device.openScope(); var module = CudaModule.load(device, AXPY)) {
            var x = scope.zeros(stream, DType.F32, 3);
            axpy(module, x, x, 1).shared(64 << 10).launch(stream);
            stream.synchronize();
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    @Test
    void sourceIsCompiledByNvrtc() {
        try (var device = Device.open("simt")) {
            var source = assertThrows(ArgumentException.class, () -> CudaModule.compile(device, "#error no", "bad.cu"));
            assertTrue(source.getMessage().contains("bad.cu(1): error: #error directive"), source.getMessage());
            // The test compiler takes PTX for CUDA C++.
            try (var module = CudaModule.compile(device, Files.readString(AXPY), "axpy.cu", "--use_fast_math")) {
                assertTrue(module.log().contains("axpy.cu(1): warning"), module.log());
                assertEquals("axpy", module.kernel("axpy").name());
            } catch (IOException e) {
                throw new AssertionError(e);
            }
            assertTrue(TestDriver.log().contains("axpy.cu --use_fast_math --gpu-architecture=sm_80"));
        }
    }

    @Test
    void whatIsNoModuleIsRefused() {
        try (var device = Device.open("simt"); var cpu = Device.open("cpu")) {
            refused(Status.RANGE, "neither a cubin, nor a fatbin, nor PTX", () -> CudaModule.load(device, new byte[7]));
            assertThrows(NoSuchFileException.class, () -> CudaModule.load(device, Path.of("no", "such.cubin")));
            var error = assertThrows(UnsupportedException.class, () -> CudaModule.load(cpu, AXPY));
            assertTrue(error.getMessage().contains("open a cuda device"), error.getMessage());
        }
    }

    @Test
    void launchesAllocateNothing() throws IOException {
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        var calls = 2_000;
        try (var device = Device.open("simt"); var stream = device.openStream(); var scope = device.openScope();
                var module = CudaModule.load(device, AXPY)) {
            var x = scope.zeros(stream, DType.F32, 3);
            var call = axpy(module, x, x, 0);
            var least = Long.MAX_VALUE;
            for (var round = 0; round < 20 && least > 0; round++) {
                var before = threads.getCurrentThreadAllocatedBytes();
                for (var i = 0; i < calls; i++) {
                    call.set(2, i % 3).grid(1 + i % 5, 1, 1).launch(stream);
                }
                least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
                TestDriver.log();
            }
            assertTrue(least < calls, least + " bytes in " + calls + " launches");
        }
    }
}
