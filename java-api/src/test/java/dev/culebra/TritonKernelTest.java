package dev.culebra;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.culebra.io.FormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Compiled Triton kernels: what is committed, what a folder must hold, and what reaches the driver. */
class TritonKernelTest {
    private static final Path TRITON = TestDriver.file("native/triton");
    private static final Path ARTEFACTS = TRITON.resolve("artefacts");

    @TempDir
    Path folder;

    @BeforeAll
    static void useDriver() {
        TestDriver.use();
    }

    @AfterAll
    static void removeDriver() {
        TestDriver.remove();
    }

    private static List<Path> artefacts(String suffix) throws IOException {
        try (var files = Files.walk(ARTEFACTS)) {
            return files.filter(file -> file.toString().endsWith(suffix)).sorted().toList();
        }
    }

    /** What is committed was compiled from the sources as they are. */
    @Test
    void artefactsMatchTheirSources() throws Exception {
        var signatures = artefacts(TritonVariant.SIGNATURE);
        assertTrue(signatures.size() >= 20, signatures.toString());
        for (var file : signatures) {
            var text = Files.readString(file);
            var source = field(text, "source");
            var digest = MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(TRITON.resolve(source)));
            assertEquals(HexFormat.of().formatHex(digest), field(text, "source_sha256"),
                    file + " is of another " + source + ": run native/triton/compile.py");
        }
    }

    private static String field(String json, String name) {
        var found = Pattern.compile("\"" + name + "\": \"([^\"]*)\"").matcher(json);
        assertTrue(found.find(), name);
        return found.group(1);
    }

    /** Every kernel was run beside its oracle, for each element type that there is an artefact of. */
    @Test
    void everyArtefactHasAnOracleResult() throws IOException {
        var results = Files.readString(TRITON.resolve("oracles.json"));
        for (var file : artefacts(TritonVariant.SIGNATURE)) {
            var parts = file.getFileName().toString().split("[._]");
            var name = file.getParent().getFileName().toString();
            var dtype = List.of(parts).contains("bf16") ? "bf16" : "fp16";
            assertTrue(Pattern.compile("\"kernel\": \"" + name + "\",\\s+\"dtype\": \"" + dtype + "\"").matcher(results).find(),
                    name + " " + dtype);
        }
    }

    /**
     * Every cubin declares the parameters of its signature: prepare compares them. Those of other architectures are told
     * to be of the test device's, which reads them and runs nothing.
     */
    @Test
    void imagesDeclareTheirSignatures() throws IOException {
        var images = artefacts(".cubin");
        assertTrue(images.size() >= 20, images.size() + " images");
        try (var device = Device.open("simt")) {
            var own = 10 * device.info().computeMajor() + device.info().computeMinor();
            for (var file : images) {
                var stem = file.getFileName().toString().replace(".cubin", "");
                var image = Files.readAllBytes(file);
                image[ELF_FLAGS_AT] = (byte) own;
                var metadata = Files.readString(file.resolveSibling(stem + ".json"));
                Files.write(folder.resolve(stem + ".cubin"), image);
                Files.writeString(folder.resolve(stem + ".json"), metadata.replaceFirst("\"arch\": \\d+", "\"arch\": " + own));
                Files.copy(file.resolveSibling(stem + TritonVariant.SIGNATURE), folder.resolve(stem + TritonVariant.SIGNATURE));
                TritonKernel.load(folder.resolve(stem)).prepare(device).close();
            }
        }
    }

    /** Of the field e_flags in a 64-bit ELF header, whose lowest byte is the architecture of a cubin. */
    private static final int ELF_FLAGS_AT = 48;

    @Test
    void aLaunchIsWhatTritonWouldLaunch() throws IOException {
        var kernel = TritonKernel.load(ARTEFACTS.resolve("softmax"));
        assertEquals("softmax", kernel.name());
        assertEquals(List.of("x", "y", "x_stride", "y_stride", "n", "scale", "BLOCK"), kernel.parameters());
        assertEquals(List.of("sm_80", "sm_90"), kernel.architectures());
        assertEquals(2048, kernel.constant("BLOCK"));
        try (var device = Device.open("simt"); var stream = device.openStream(); var scope = device.openScope();
                var call = kernel.prepare(device)) {
            var x = scope.zeros(stream, DType.F16, 4, 64);
            TestDriver.log();
            call.grid(4, 1, 1).set("x", x).set("y", x).set("x_stride", 64).set("y_stride", 64).set("n", 64).set("scale", 0.5);
            assertEquals("softmax.fp16_aligned.sm_80", call.variant());
            call.launch(stream);
            var address = String.format("%016x", x.address().address());
            assertEquals("cuLaunchKernelEx softmax grid 4,1,1 block 256,1,1 shared 32 parameters " + address + "," + address
                    + ",00000040,00000040,00000040,3f000000,0000000000000000,0000000000000000\n", TestDriver.log());

            // A length that is not divisible by 16, or a row that begins elsewhere, takes the variant that assumes nothing.
            assertEquals("softmax.fp16.sm_80", call.set("n", 63).variant());
            assertEquals("softmax.fp16_aligned.sm_80", call.set("n", 48).variant());
            assertEquals("softmax.fp16.sm_80", call.set("x", x.slice(1, 1, 64)).variant());
            var half = scope.zeros(stream, DType.BF16, 4, 64);
            var error = assertThrows(ArgumentException.class, () -> call.set("x", half).variant());
            assertTrue(error.getMessage().contains("x must be *fp16"), error.getMessage());
            assertTrue(error.getMessage().contains("y must be *bf16"), error.getMessage());
            assertEquals("softmax.bf16_aligned.sm_80", call.set("y", half).variant());
        }
    }

    @Test
    void badArgumentsAreRefused() throws IOException {
        var kernel = TritonKernel.load(ARTEFACTS.resolve("add_rms_norm"));
        try (var device = Device.open("simt"); var stream = device.openStream(); var scope = device.openScope();
                var cpu = Device.open("cpu")) {
            var x = scope.zeros(stream, DType.F16, 4, 64);
            var call = kernel.prepare(device);
            var ints = scope.zeros(stream, DType.I32, 4);
            refused(Status.RANGE, "no parameter \"z\"; the kernel has x, residual, weight", () -> call.set("z", x));
            refused(Status.DTYPE, "x is *bf16 or *fp16, but tensor", () -> call.set("x", ints));
            refused(Status.DTYPE, "n is i32, but the float 1.5", () -> call.set("n", 1.5));
            refused(Status.DTYPE, "n is i32, but the integer 2147483648", () -> call.set("n", 1L << 31));
            refused(Status.DTYPE, "eps is fp32, but the integer 1", () -> call.set("eps", 1));
            refused(Status.DTYPE, "eps is fp32, but tensor", () -> call.set("eps", x));
            TestDriver.log();
            refused(Status.RANGE, "residual was not set", () -> call.set("x", x).launch(stream));
            for (var name : List.of("x", "residual", "weight", "sum", "y")) {
                call.set(name, x);
            }
            call.set("stride", 64).set("n", 64).set("eps", 1e-6);
            refused(Status.RANGE, "the grid is [0, 1, 1]", () -> call.grid(0, 1, 1).launch(stream));
            assertEquals("", TestDriver.log());
            call.grid(4, 1, 1).launch(stream);
            call.close();
            assertThrows(ClosedException.class, () -> call.launch(stream));

            var error = assertThrows(UnsupportedException.class, () -> kernel.prepare(cpu));
            assertEquals(Status.ARCH, error.status());
            assertTrue(error.getMessage().contains("compiled for sm_80, sm_90"), error.getMessage());
        }
    }

    private static void refused(Status status, String part, org.junit.jupiter.api.function.Executable call) {
        var error = assertThrows(ArgumentException.class, call);
        assertEquals(status, error.status(), error.getMessage());
        assertTrue(error.getMessage().contains(part), error.getMessage());
    }

    // ---------------------------------------------------------------------------------- folders that the test writes

    private static final String METADATA = """
            {"name": "axpy", "shared": 0, "num_warps": 4, "num_ctas": 1, "global_scratch_size": 0,
             "global_scratch_align": 1, "profile_scratch_size": 0, "profile_scratch_align": 1, "launch_pdl": false,
             "launch_cooperative_grid": false, "target": {"backend": "cuda", "arch": 80, "warp_size": 32}}
            """;
    private static final String SIGNATURE = """
            {"parameters": [{"name": "y", "type": "*fp32"}, {"name": "x", "type": "*fp32"}, {"name": "n", "type": "i32"},
             {"name": "a", "type": "fp32"}, {"name": "BLOCK", "type": "constexpr", "value": 128}]}
            """;
    private static final String PTX = """
            .version 7.0
            .target sm_80
            .address_size 64
            .visible .entry axpy(.param .u64 y, .param .u64 x, .param .u32 n, .param .f32 a, .param .u64 s, .param .u64 p)
            { ret; }
            """;

    private void write(String stem, String metadata, String signature, String ptx) throws IOException {
        Files.writeString(folder.resolve(stem + ".json"), metadata);
        Files.writeString(folder.resolve(stem + ".signature.json"), signature);
        Files.writeString(folder.resolve(stem + ".ptx"), ptx);
    }

    private void malformed(String part, String metadata, String signature) throws IOException {
        write("axpy", metadata, signature, PTX);
        var error = assertThrows(FormatException.class, () -> TritonKernel.load(folder));
        assertTrue(error.getMessage().contains(part), error.getMessage());
    }

    @Test
    void filesThatLackSomethingAreRefused() throws IOException {
        assertTrue(assertThrows(FormatException.class, () -> TritonKernel.load(folder)).getMessage()
                .contains("no *.signature.json"));
        malformed("\"num_warps\" is missing", METADATA.replace("num_warps", "warps"), SIGNATURE);
        malformed("\"launch_pdl\" is missing", METADATA.replace("launch_pdl", "pdl"), SIGNATURE);
        malformed("\"target\" is missing", METADATA.replace("target", "for"), SIGNATURE);
        malformed("must be \"cuda\"", METADATA.replace("\"cuda\"", "\"hip\""), SIGNATURE);
        malformed("not JSON", METADATA.replace("}}", ""), SIGNATURE);
        malformed("tl.make_tensor_descriptor", METADATA.replaceFirst("\\{", "{\"tensordesc_meta\": [{}],"), SIGNATURE);
        malformed("\"parameters\" is missing", METADATA, "{}");
        malformed("parameter a has type \"fp33\"", METADATA, SIGNATURE.replace("\"fp32\"}, {\"name\": \"B", "\"fp33\"}, {\"name\": \"B"));
        malformed("\"type\" is missing", METADATA, SIGNATURE.replace("\"type\": \"i32\"", "\"kind\": \"i32\""));
        malformed("the constexpr BLOCK has no \"value\"", METADATA, SIGNATURE.replace("value", "is"));
        write("axpy", METADATA, SIGNATURE, PTX);
        write("other", METADATA.replace("axpy", "other"), SIGNATURE, PTX);
        assertTrue(assertThrows(FormatException.class, () -> TritonKernel.load(folder)).getMessage().contains("two kernels"));
        Files.delete(folder.resolve("axpy.ptx"));
        assertTrue(assertThrows(FormatException.class, () -> TritonKernel.load(folder.resolve("axpy.json"))).getMessage()
                .contains("neither a .cubin nor a .ptx"));
        Files.delete(folder.resolve("axpy.json"));
        assertTrue(assertThrows(FormatException.class, () -> TritonKernel.load(folder.resolve("axpy"))).getMessage()
                .contains("axpy.json: no such file"));
    }

    @Test
    void anImageThatDeclaresOtherParametersIsRefused() throws IOException {
        try (var device = Device.open("simt")) {
            write("axpy", METADATA, SIGNATURE.replace("\"i32\"", "\"i64\""), PTX);
            refused(Status.RANGE, "parameter 2 of the image has 4 bytes; n is i64, which has 8",
                    () -> TritonKernel.load(folder).prepare(device));
            write("axpy", METADATA, "{\"parameters\": []}", PTX);
            refused(Status.RANGE, "the image declares 6 parameters", () -> TritonKernel.load(folder).prepare(device));
            write("axpy", METADATA, SIGNATURE, PTX.replace(", .param .u64 s, .param .u64 p", ""));
            TritonKernel.load(folder).prepare(device).close();
            write("axpy", METADATA.replace("\"global_scratch_size\": 0", "\"global_scratch_size\": 64"), SIGNATURE,
                    PTX.replace(", .param .u64 s, .param .u64 p", ""));
            refused(Status.RANGE, "asks for scratch memory", () -> TritonKernel.load(folder).prepare(device));
            write("axpy", METADATA.replace("\"shared\": 0", "\"shared\": 300000"), SIGNATURE, PTX);
            var error = assertThrows(UnsupportedException.class, () -> TritonKernel.load(folder).prepare(device));
            assertTrue(error.getMessage().contains("needs 300000 bytes of shared memory"), error.getMessage());
            write("axpy", METADATA.replace("\"arch\": 80", "\"arch\": 90"), SIGNATURE, PTX);
            assertEquals(Status.ARCH,
                    assertThrows(UnsupportedException.class, () -> TritonKernel.load(folder).prepare(device)).status());
        }
    }

    @Test
    void scratchIsTheStreamsWorkspace() throws IOException {
        write("axpy", METADATA.replace("\"global_scratch_size\": 0", "\"global_scratch_size\": 48")
                .replace("\"global_scratch_align\": 1", "\"global_scratch_align\": 128")
                .replace("\"profile_scratch_size\": 0", "\"profile_scratch_size\": 8"), SIGNATURE, PTX);
        try (var device = Device.open("simt"); var stream = device.openStream(); var scope = device.openScope();
                var call = TritonKernel.load(folder).prepare(device)) {
            var x = scope.zeros(stream, DType.F32, 3);
            call.grid(3, 2, 1).set("x", x).set("y", x).set("n", 0).set("a", 1.0);
            assertThrows(UnsupportedException.class, () -> stream.capture(() -> call.launch(stream)));
            call.launch(stream);
            assertTrue(stream.workspaceBytes() >= 6 * 48 + 6 * 8);
            var parameters = TestDriver.log().lines().filter(line -> line.startsWith("cuLaunch")).toList().getLast().split(",");
            var global = Long.parseUnsignedLong(parameters[parameters.length - 2], 16);
            var profile = Long.parseUnsignedLong(parameters[parameters.length - 1], 16);
            assertEquals(0, global % 128);
            assertEquals(global + 384, profile, "6 x 48 bytes, rounded up to 128");
        }
    }

    @Test
    void constantsChooseAmongVariants() throws IOException {
        write("small", METADATA, SIGNATURE, PTX);
        write("large", METADATA.replace("\"num_warps\": 4", "\"num_warps\": 8"), SIGNATURE.replace("128", "256"), PTX + "// large");
        try (var device = Device.open("simt")) {
            var kernel = TritonKernel.load(folder);
            refused(Status.RANGE, "choose with with(\"BLOCK\"", () -> kernel.prepare(device));
            refused(Status.RANGE, "has not one value but [256, 128]", () -> kernel.constant("BLOCK"));
            refused(Status.RANGE, "there are [256, 128]", () -> kernel.with("BLOCK", 64));
            assertEquals(256, kernel.with("BLOCK", 256).constant("BLOCK"));
            kernel.with("BLOCK", 128).prepare(device).close();
        }
    }

    /** A variant may have an argument as a constant that others take: Triton does so for 1. */
    @Test
    void anArgumentMayBeAConstantOfSomeVariants() throws IOException {
        write("any", METADATA, SIGNATURE, PTX);
        write("one", METADATA, SIGNATURE.replace("{\"name\": \"n\", \"type\": \"i32\"}",
                "{\"name\": \"n\", \"type\": \"constexpr\", \"value\": 1}").replace("\"*fp32\"}, {\"name\": \"x\"",
                        "\"*fp32\", \"divisible_by\": 16}, {\"name\": \"x\""), PTX.replace(".param .u32 n, ", ""));
        try (var device = Device.open("simt"); var stream = device.openStream(); var scope = device.openScope();
                var call = TritonKernel.load(folder).prepare(device)) {
            var x = scope.zeros(stream, DType.F32, 3);
            call.set("x", x).set("y", x).set("a", 1.0);
            assertEquals("one", call.set("n", 1).variant());
            assertEquals("any", call.set("n", 2).variant());
        }
    }

    @Test
    void launchAttributesFollowTheMetadata() throws IOException {
        write("axpy", METADATA.replace("\"launch_cooperative_grid\": false", "\"launch_cooperative_grid\": true"), SIGNATURE, PTX);
        try (var device = Device.open("simt"); var stream = device.openStream(); var scope = device.openScope();
                var call = TritonKernel.load(folder).prepare(device)) {
            var x = scope.zeros(stream, DType.F32, 3);
            call.set("x", x).set("y", x).set("n", 0).set("a", 1.0).launch(stream);
            assertTrue(TestDriver.log().contains("block 128,1,1 shared 0 cooperative parameters"));
            // simt has neither clusters nor dependent launches, and says so.
            write("axpy", METADATA.replace("\"num_ctas\": 1", "\"num_ctas\": 2"), SIGNATURE, PTX);
            try (var clustered = TritonKernel.load(folder).prepare(device)) {
                clustered.set("x", x).set("y", x).set("n", 0).set("a", 1.0);
                var error = assertThrows(UnsupportedException.class, () -> clustered.launch(stream));
                assertTrue(error.getMessage().contains("cluster of [2, 1, 1] needs compute capability 9.0"), error.getMessage());
            }
        }
    }
}
