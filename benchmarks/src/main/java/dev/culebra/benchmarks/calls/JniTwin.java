package dev.culebra.benchmarks.calls;

import dev.culebra.bindings.NativeLibrary;
import dev.culebra.bindings.generated.culebra_h;

/** The native methods of {@code jni_twin.c}. Handles and descriptors are addresses; a status is returned. */
final class JniTwin {
    static {
        NativeLibrary.load();
        NativeResource.load("libculebra_jni_twin.so");
        bind(
                culebra_h.cul_abi_version$address().address(),
                culebra_h.cul_stream_query$address().address(),
                culebra_h.cul_rms_norm$address().address(),
                culebra_h.cul_sample$address().address());
    }

    private JniTwin() {}

    private static native void bind(long abiVersion, long streamQuery, long rmsNorm, long sample);

    static native int abiVersion();

    /** 1 or 0; a failure is its status, negative. */
    static native int streamQuery(long stream);

    static native int rmsNorm(
            long stream, int flags, long x, long weight, long residual, long y, long residualOut, float eps, boolean zeroCentered);

    static native int sample(
            long stream,
            int flags,
            long logits,
            long temperature,
            long topK,
            long topP,
            long minP,
            long seed,
            long position,
            long ids,
            long logprob);
}
