package dev.culebra.benchmarks.calls;

import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import jcuda.NativePointerObject;
import jcuda.Pointer;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUfunction;
import jcuda.driver.CUmodule;
import jcuda.driver.CUstream;
import jcuda.driver.JCudaDriver;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.TearDown;

/**
 * Through JCuda, the JNI binding that JVM users have had: against the machine's driver, or, where there is none, against
 * one of ours that does nothing. Its peer of an operator call is the launch of an empty kernel of 8 parameters, which are
 * written for each launch; nothing is checked. The empty driver runs nothing, so there {@code launch}
 * compares with the checked calls; with a real one it compares with those that run.
 */
public class JCuda extends Calls {
    private static final int PARAMETERS = 8;
    private static final String KERNEL = """
            .version 7.0
            .target sm_80
            .address_size 64
            .visible .entry noop(.param .u64 p0, .param .u64 p1, .param .u64 p2, .param .u64 p3,
                                 .param .u64 p4, .param .u64 p5, .param .u64 p6, .param .u64 p7) { ret; }
            """;

    private final CUcontext context = new CUcontext();
    private final CUstream stream = new CUstream();
    private final CUfunction function = new CUfunction();
    private final int[] version = new int[1];
    private final long[][] values = new long[PARAMETERS][1];
    private Pointer parameters;

    /** If this machine has a CUDA driver. */
    @SuppressWarnings("restricted")
    public static boolean driverPresent() {
        try (var arena = Arena.ofConfined()) {
            SymbolLookup.libraryLookup("libcuda.so.1", arena);
            return true;
        } catch (IllegalArgumentException e) {
            return false;
        }
    }

    /** Loads a driver, makes a context, a stream and the kernel. */
    @Setup
    public void open() {
        if (!driverPresent()) {
            NativeResource.load("libcuda_stub.so");
        }
        JCudaDriver.setExceptionsEnabled(true);
        JCudaDriver.cuInit(0);
        var device = new CUdevice();
        JCudaDriver.cuDeviceGet(device, 0);
        JCudaDriver.cuCtxCreate(context, 0, device);
        JCudaDriver.cuStreamCreate(stream, 0);
        var module = new CUmodule();
        JCudaDriver.cuModuleLoadData(module, KERNEL + "\0");
        JCudaDriver.cuModuleGetFunction(function, module, "noop");
        var pointers = new NativePointerObject[PARAMETERS];
        for (var i = 0; i < PARAMETERS; i++) {
            pointers[i] = Pointer.to(values[i]);
        }
        parameters = Pointer.to(pointers);
    }

    /** Destroys the context and all that was made in it. */
    @TearDown
    public void close() {
        JCudaDriver.cuCtxDestroy(context);
    }

    @Benchmark
    public int noop() {
        JCudaDriver.cuDriverGetVersion(version);
        return version[0];
    }

    @Benchmark
    public int query() {
        return JCudaDriver.cuStreamQuery(stream);
    }

    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void launch() {
        for (var i = 0; i < CALLS; i++) {
            for (var parameter = 0; parameter < PARAMETERS; parameter++) {
                values[parameter][0] = i + parameter;
            }
            JCudaDriver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, null);
        }
        JCudaDriver.cuStreamSynchronize(stream);
    }
}
