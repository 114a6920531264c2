package dev.culebra;

import dev.culebra.bindings.generated.cul_kernel_info;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** A kernel of a {@link CudaModule}, usable as long as that is open. {@link #prepare} makes a call of it. */
public final class Kernel {
    final CudaModule module;
    final MemorySegment handle;
    private final String name;
    private final int[] offsets_bytes;
    private final int[] sizes_bytes;
    private final int registers;
    private final int localBytes;
    private final int maxThreadsPerBlock;
    private final int staticSharedBytes;
    private final int maxDynamicSharedBytes;
    private final int parameterBytes;

    Kernel(CudaModule module, MemorySegment handle, String name) {
        this.module = module;
        this.handle = handle;
        this.name = name;
        var backend = module.device().backend();
        try (var arena = Arena.ofConfined()) {
            var info = arena.allocate(cul_kernel_info.layout());
            cul_kernel_info.struct_size(info, (int) info.byteSize());
            Natives.check(culebra_h.cul_kernel_get_info(handle, info), "kernel_get_info", backend);
            registers = cul_kernel_info.registers(info);
            localBytes = cul_kernel_info.local_bytes(info);
            maxThreadsPerBlock = cul_kernel_info.max_threads_per_block(info);
            staticSharedBytes = cul_kernel_info.static_shared_bytes(info);
            maxDynamicSharedBytes = cul_kernel_info.max_dynamic_shared_bytes(info);
            parameterBytes = cul_kernel_info.parameter_bytes(info);
            offsets_bytes = new int[cul_kernel_info.parameter_count(info)];
            sizes_bytes = new int[offsets_bytes.length];
            var place = arena.allocate(ValueLayout.JAVA_INT, 2);
            for (var i = 0; i < offsets_bytes.length; i++) {
                Natives.check(culebra_h.cul_kernel_parameter(handle, i, place, place.asSlice(4)), "kernel_parameter", backend);
                offsets_bytes[i] = place.getAtIndex(ValueLayout.JAVA_INT, 0);
                sizes_bytes[i] = place.getAtIndex(ValueLayout.JAVA_INT, 1);
            }
        }
    }

    /** The name that the module knows it by. */
    public String name() {
        return name;
    }

    /** Registers of a thread. */
    public int registers() {
        return registers;
    }

    /** Local memory of a thread in bytes: spilled registers and arrays. */
    public int localBytes() {
        return localBytes;
    }

    /** The most threads that a block of it may have. */
    public int maxThreadsPerBlock() {
        return maxThreadsPerBlock;
    }

    /** The shared memory that is part of the kernel. */
    public int staticSharedBytes() {
        return staticSharedBytes;
    }

    /** The most shared memory that a launch may add to it on this device. */
    public int maxDynamicSharedBytes() {
        return maxDynamicSharedBytes;
    }

    /** How many parameters it declares. */
    public int parameters() {
        return offsets_bytes.length;
    }

    /** The size of one of its parameters. */
    public int parameterBytes(int index) {
        return sizes_bytes[checkedIndex(index)];
    }

    /** A call of this kernel, whose arguments are yet to be set. */
    public KernelCall prepare() {
        return new KernelCall(this);
    }

    @Override
    public String toString() {
        return "kernel " + name + " of " + module;
    }

    int blockBytes() {
        return parameterBytes;
    }

    /** Where an argument of {@code bytes} bytes goes. */
    int place(int index, int bytes, String what) {
        if (parameterBytes(index) != bytes) {
            throw new ArgumentException(Status.DTYPE, name, module.device().backend(), name + ": parameter " + index + " has "
                    + sizes_bytes[index] + " bytes but " + what + " has " + bytes);
        }
        return offsets_bytes[index];
    }

    private int checkedIndex(int index) {
        if (index < 0 || index >= offsets_bytes.length) {
            throw new ArgumentException(Status.RANGE, name, module.device().backend(),
                    name + ": there is no parameter " + index + "; the kernel declares " + offsets_bytes.length);
        }
        return index;
    }
}
