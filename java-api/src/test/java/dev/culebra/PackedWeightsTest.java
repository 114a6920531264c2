package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Random;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

@SuppressWarnings("try") // closed twice
class PackedWeightsTest {
    private static final int N = 72;
    private static final int K = 160;
    private static final int GROUP = 32;
    private static final int GROUPS = K / GROUP;

    private static float[] random(long seed, int count) {
        var random = new Random(seed);
        var values = new float[count];
        for (var i = 0; i < count; i++) {
            values[i] = random.nextFloat() * 2 - 1;
        }
        return values;
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void quantizesPacksMultipliesAndUnpacks(String backend) {
        try (var device = Device.open(backend,
                DeviceOptions.DEFAULT.withPoison(true)); var stream = device.openStream();
                var scope = device.openScope()) {
            var w = scope.floats(stream, random(1, N * K), N, K);
            var q = scope.allocate(DType.U8, N, K);
            var scales = scope.allocate(DType.F16, N, GROUPS);
            var zeros = scope.allocate(DType.U8, N, GROUPS);
            Ops.quantizeWeights(stream, w, q, scales, zeros, 4, GROUP);
            var source = CheckpointWeights.of(WeightFormat.PLAIN, 4, GROUP, q, scales, zeros, null);
            try (var packed = Ops.packWeights(stream, scope, source)) {
                assertEquals(N, packed.n());
                assertEquals(K, packed.k());
                assertTrue(packed.hasZeros());
                assertFalse(packed.isPermuted());
                assertTrue(packed.bytes() >= N * K / 2);

                var a = scope.floats(stream, DType.F16, random(2, 3 * K), 3, K);
                var c = scope.allocate(DType.F16, 3, N);
                Ops.w4a16Gemm(stream, a, packed, null, c, Epilogue.NONE);
                assertProduct(stream, a, q, scales, zeros, c);

                var target = plainLike(scope);
                Ops.unpackWeights(stream, packed, target);
                assertArrayEquals(q.bytes(stream), target.qweight().bytes(stream));
                assertArrayEquals(scales.bytes(stream), target.scales().bytes(stream));
                var unpackedZeros = target.zeros();
                assertNotNull(unpackedZeros);
                assertArrayEquals(zeros.bytes(stream), unpackedZeros.bytes(stream));
                packed.close();
                assertTrue(packed.isClosed());
                assertThrows(ClosedException.class, () -> Ops.w4a16Gemm(stream, a, packed, null, c, Epilogue.NONE));
            }
        }
    }

    private static CheckpointWeights plainLike(Scope scope) {
        return CheckpointWeights.of(WeightFormat.PLAIN, 4, GROUP, scope.allocate(DType.U8, N, K),
                scope.allocate(DType.F16, N, GROUPS), scope.allocate(DType.U8, N, GROUPS), null);
    }

    private static void assertProduct(
            dev.culebra.Stream stream, Tensor a, Tensor q, Tensor scales, Tensor zeros, Tensor c) {
        var x = a.floats(stream);
        var s = scales.floats(stream);
        var quantized = q.bytes(stream);
        var points = zeros.bytes(stream);
        var actual = c.floats(stream);
        var squares = 0.0;
        var errors = 0.0;
        for (var m = 0; m < 3; m++) {
            for (var n = 0; n < N; n++) {
                var sum = 0.0;
                for (var k = 0; k < K; k++) {
                    var g = n * GROUPS + k / GROUP;
                    sum += (double) x[m * K + k] * (quantized[n * K + k] - points[g]) * s[g];
                }
                squares += sum * sum;
                errors += (sum - actual[m * N + n]) * (sum - actual[m * N + n]);
            }
        }
        assertTrue(Math.sqrt(errors / squares) <= 2e-3, "rms ratio " + Math.sqrt(errors / squares));
    }

    /** Act-order: the group of each k is shuffled, and the exact inverse gives the checkpoint back. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void gptqComesBackBitForBit(String backend) {
        var seed = System.nanoTime();
        var random = new Random(seed);
        try (var device = Device.open(backend,
                DeviceOptions.DEFAULT.withPoison(true)); var stream = device.openStream();
                var scope = device.openScope()) {
            var words = random.ints((long) K / 8 * N).toArray();
            var zeroWords = random.ints((long) GROUPS * N / 8).map(word -> word & 0x77777777).toArray();
            var groups = random.ints(K, 0, GROUPS).toArray();
            var source = CheckpointWeights.of(WeightFormat.GPTQ_AUTO, 4, GROUP,
                    scope.ints(stream, words, K / 8, N),
                    scope.floats(stream, DType.F16, random(3, GROUPS * N), GROUPS, N),
                    scope.ints(stream, zeroWords, GROUPS, N / 8),
                    scope.ints(stream, groups, K));
            assertEquals(N, source.n());
            assertEquals(K, source.k());
            var packed = Ops.packWeights(stream, scope, source);
            assertEquals(WeightFormat.GPTQ_V1, packed.format(), "seed " + seed);
            assertTrue(packed.isPermuted());
            var target = CheckpointWeights.of(WeightFormat.GPTQ_V1, 4, GROUP,
                    scope.allocate(DType.I32, K / 8, N), scope.allocate(DType.F16, GROUPS, N),
                    scope.allocate(DType.I32, GROUPS, N / 8), scope.allocate(DType.I32, K));
            Ops.unpackWeights(stream, packed, target);
            assertArrayEquals(words, target.qweight().ints(stream), "seed " + seed);
            var zeros = target.zeros();
            var groupIndex = target.groupIndex();
            assertNotNull(zeros);
            assertNotNull(groupIndex);
            assertArrayEquals(zeroWords, zeros.ints(stream), "seed " + seed);
            assertArrayEquals(groups, groupIndex.ints(stream), "seed " + seed);
        }
    }

    /** Every other kind of plain weights: floats, blocks, six bits, 2:4, for bytes. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void everyKindComesBackBitForBit(String backend) {
        try (var device = Device.open(backend, DeviceOptions.DEFAULT.withPoison(true));
                var stream = device.openStream(); var scope = device.openScope()) {
            comesBack(stream, scope, like(scope, 8, -1, DType.F8E4M3, DType.F16, 1));
            comesBack(stream, scope, like(scope, 8, 32, DType.F8E4M3, DType.BF16, GROUPS));
            comesBack(stream, scope, CheckpointWeights.of(WeightFormat.PLAIN, 8, -1,
                    scope.allocate(DType.F8E4M3, N, K), scope.allocate(DType.F32, 1, 2), null, null)
                    .withScaling(CheckpointWeights.Scaling.BLOCK128));
            comesBack(stream, scope, like(scope, 6, 128, DType.U8, DType.F16, 2));
            comesBack(stream, scope,
                    like(scope, 6, 128, DType.U8, DType.F16, 2).withOperand(CheckpointWeights.Operand.BYTE));
            comesBack(stream, scope,
                    like(scope, 4, 128, DType.U8, DType.F8E4M3, 2).withOperand(CheckpointWeights.Operand.BYTE));
        }
    }

    private static CheckpointWeights like(Scope scope, int bits, int group, DType dtype, DType scales, long groups) {
        return CheckpointWeights.of(WeightFormat.PLAIN, bits, group, scope.allocate(dtype, N, K),
                scope.allocate(scales, N, groups), null, null);
    }

    /** Fills the checkpoint with random bits, packs it, and unpacks it to another one. */
    private static void comesBack(Stream stream, Scope scope, CheckpointWeights source) {
        var random = new Random(source.bits());
        var q = new byte[N * K];
        random.nextBytes(q);
        for (var i = 0; i < q.length; i++) {
            q[i] &= (byte) ((1 << source.bits()) - 1);
        }
        var scales = new byte[(int) source.scales().bytes()];
        random.nextBytes(scales);
        source.qweight().setBytes(stream, q);
        source.scales().setBytes(stream, scales);
        var packed = Ops.packWeights(stream, scope, source);
        assertEquals(source.scaling(), packed.scaling());
        assertEquals(source.operand(), packed.operand());
        source.qweight().zero(stream);
        source.scales().zero(stream);
        Ops.unpackWeights(stream, packed, source);
        assertArrayEquals(q, source.qweight().bytes(stream), packed.toString());
        assertArrayEquals(scales, source.scales().bytes(stream), packed.toString());
        packed.close();
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void failuresLeakNothing(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var q = scope.zeros(stream, DType.U8, N, K);
            var scales = scope.zeros(stream, DType.F16, N, GROUPS);
            stream.synchronize();
            var before = device.memory().statistics();
            var wrong = CheckpointWeights.of(WeightFormat.PLAIN, 4, 64, q, scales, null, null);
            assertThrows(ArgumentException.class, () -> Ops.packWeights(stream, scope, wrong));
            device.memory().limit(before.usedBytes() + 4096);
            var right = CheckpointWeights.of(WeightFormat.PLAIN, 4, GROUP, q, scales, null, null);
            assertThrows(MemoryException.class, () -> Ops.packWeights(stream, scope, right));
            device.memory().limit(0);
            stream.synchronize();
            assertEquals(before.liveAllocations(), device.memory().statistics().liveAllocations());
            assertEquals(2, scope.openTensors());
            assertThrows(ArgumentException.class, () -> CheckpointWeights.of(
                    WeightFormat.COMPRESSED_TENSORS, 4, GROUP, q, scales, null, null));
        }
    }

    private static PackedWeights pack(Stream stream, Scope scope) {
        var integers = new byte[N * K];
        new Random(5).nextBytes(integers);
        for (var i = 0; i < integers.length; i++) {
            integers[i] &= 15;
        }
        try (var q = scope.allocate(DType.U8, N, K);
                var scales = scope.floats(stream, DType.F16, random(6, N * GROUPS), N, GROUPS)) {
            q.setBytes(stream, integers);
            return Ops.packWeights(
                    stream, scope, CheckpointWeights.of(WeightFormat.PLAIN, 4, GROUP, q, scales, null, null));
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void anotherDeviceRefusesThem(String backend) {
        try (var here = Device.open(backend); var there = Device.open(backend); var stream = here.openStream();
                var elsewhere = there.openStream(); var scope = here.openScope(); var away = there.openScope()) {
            var packed = pack(elsewhere, away);
            assertEquals(there, packed.device());
            var a = scope.zeros(stream, DType.F16, 3, K);
            var c = scope.zeros(stream, DType.F16, 3, N);
            var error = assertThrows(ArgumentException.class,
                    () -> Ops.w4a16Gemm(stream, a, packed, null, c, Epilogue.NONE));
            assertEquals(Status.DEVICE, error.status());
            assertTrue(error.getMessage().contains(packed + ", was packed for " + there), error.getMessage());
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void productsOfAnotherKindRefuseThem(String backend) {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope()) {
            var packed = pack(stream, scope);
            var a = scope.zeros(stream, DType.F16, 3, K);
            var c = scope.zeros(stream, DType.F16, 3, N);
            var error = assertThrows(ArgumentException.class,
                    () -> Ops.w8a16Gemm(stream, a, packed, null, c, Epilogue.NONE));
            assertEquals(Status.RANGE, error.status());
            assertTrue(error.getMessage().endsWith("packed with 4 bits; here 8 are needed"), error.getMessage());
            error = assertThrows(ArgumentException.class,
                    () -> Ops.w4a16Sparse24Gemm(stream, a, packed, null, c, Epilogue.NONE));
            assertEquals(Status.RANGE, error.status());
            assertTrue(error.getMessage().contains("TWO_OF_FOUR"), error.getMessage());
            var bytes = plainLike(scope).withOperand(CheckpointWeights.Operand.BYTE);
            error = assertThrows(ArgumentException.class, () -> Ops.unpackWeights(stream, packed, bytes));
            assertEquals(Status.RANGE, error.status());
            assertTrue(error.getMessage().contains("BYTE"), error.getMessage());
            error = assertThrows(ArgumentException.class,
                    () -> Ops.w4a16Gemm(stream, a, null, null, c, Epilogue.NONE));
            assertEquals(Status.NULL_POINTER, error.status());
        }
    }

    /** Packed by one stream, read by four in as many threads at once. */
    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void streamsShareThem(String backend) throws Exception {
        try (var device = Device.open(backend); var stream = device.openStream(); var scope = device.openScope();
                var ready = device.openEvent()) {
            var a = scope.floats(stream, DType.F16, random(2, 3 * K), 3, K);
            var packed = pack(stream, scope);
            stream.record(ready);
            var results = new AtomicReferenceArray<byte[]>(4);
            var threads = new Thread[results.length()];
            for (var i = 0; i < threads.length; i++) {
                var at = i;
                threads[i] = Thread.ofPlatform().start(() -> {
                    try (var own = device.openStream(); var mine = device.openScope()) {
                        own.waitFor(ready);
                        var c = mine.allocate(DType.F16, 3, N);
                        for (var run = 0; run < 5; run++) {
                            Ops.w4a16Gemm(own, a, packed, null, c, Epilogue.NONE);
                        }
                        results.set(at, c.bytes(own));
                    }
                });
            }
            for (var thread : threads) {
                thread.join();
            }
            var c = scope.allocate(DType.F16, 3, N);
            Ops.w4a16Gemm(stream, a, packed, null, c, Epilogue.NONE);
            var expected = c.bytes(stream);
            for (var i = 0; i < threads.length; i++) {
                assertArrayEquals(expected, results.get(i), "thread " + i);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("dev.culebra.Backends#all")
    void queuedProductsOutliveTheirClose(String backend) {
        try (var device = Device.open(backend, DeviceOptions.DEFAULT.withPoison(true));
                var stream = device.openStream(); var scope = device.openScope()) {
            var a = scope.floats(stream, DType.F16, random(2, 3 * K), 3, K);
            var first = scope.allocate(DType.F16, 3, N);
            var second = scope.allocate(DType.F16, 3, N);
            var packed = pack(stream, scope);
            Ops.w4a16Gemm(stream, a, packed, null, first, Epilogue.NONE);
            var expected = first.bytes(stream);
            Ops.w4a16Gemm(stream, a, packed, null, second, Epilogue.NONE);
            packed.close();
            var error = assertThrows(ClosedException.class,
                    () -> Ops.w4a16Gemm(stream, a, packed, null, first, Epilogue.NONE));
            assertTrue(error.getMessage().startsWith("w4a16_gemm: packed"), error.getMessage());
            assertArrayEquals(expected, second.bytes(stream));
            assertEquals(3, scope.openTensors());
        }
    }
}
