package dev.culebra;

import dev.culebra.bindings.generated.cul_launch_args;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/**
 * A call of a {@link Kernel}: grid, block, shared memory and arguments, kept in native memory and launched as often as
 * wanted, with what was last set. A launch allocates nothing on the Java heap. One thread at a time.
 *
 * <p>What a parameter means is between the caller and the kernel: sizes are checked, element types and extents are not.
 * Tensors are checked as those of operators are: of the stream's device, and open.
 */
public final class KernelCall {
    private final Kernel kernel;
    private final MemorySegment args;
    private final MemorySegment parameters;
    private final @Nullable Tensor[] tensors;
    private final String[] tensorNames;
    private final boolean[] set;
    private int missing;

    KernelCall(Kernel kernel) {
        this.kernel = kernel;
        var arena = Arena.ofAuto();
        args = arena.allocate(cul_launch_args.layout());
        parameters = arena.allocate(Math.max(1, kernel.blockBytes()), 64);
        tensors = new Tensor[kernel.parameters()];
        tensorNames = new String[tensors.length];
        for (var i = 0; i < tensors.length; i++) {
            tensorNames[i] = "argument " + i;
        }
        set = new boolean[tensors.length];
        missing = tensors.length;
        cul_launch_args.struct_size(args, (int) args.byteSize());
        cul_launch_args.parameters(args, parameters);
        cul_launch_args.parameter_bytes(args, kernel.blockBytes());
        grid(1, 1, 1);
        block(1, 1, 1);
    }

    /** The number of blocks each way (1 at first). Checked when it is launched, as the block and the shared memory are. */
    public KernelCall grid(int x, int y, int z) {
        cul_launch_args.grid_x(args, nonNegative(x, "grid"));
        cul_launch_args.grid_y(args, nonNegative(y, "grid"));
        cul_launch_args.grid_z(args, nonNegative(z, "grid"));
        return this;
    }

    /** The number of threads of a block each way (1 at first). */
    public KernelCall block(int x, int y, int z) {
        cul_launch_args.block_x(args, nonNegative(x, "block"));
        cul_launch_args.block_y(args, nonNegative(y, "block"));
        cul_launch_args.block_z(args, nonNegative(z, "block"));
        return this;
    }

    /** The number of blocks of a cluster each way; 0, 0, 0 (at first): what the kernel was compiled for. */
    public KernelCall cluster(int x, int y, int z) {
        cul_launch_args.cluster_x(args, nonNegative(x, "cluster"));
        cul_launch_args.cluster_y(args, nonNegative(y, "cluster"));
        cul_launch_args.cluster_z(args, nonNegative(z, "cluster"));
        return this;
    }

    /** Dynamic shared memory (0 at first). */
    public KernelCall shared(int bytes) {
        cul_launch_args.shared_bytes(args, nonNegative(bytes, "shared memory"));
        return this;
    }

    /** If all blocks run at once, so that they may synchronize with one another (false at first). */
    public KernelCall cooperative(boolean value) {
        return flag(culebra_h.CUL_LAUNCH_COOPERATIVE(), value);
    }

    /** If it may start while the kernel before it ends, as the kernel then provides for (false at first). */
    public KernelCall dependent(boolean value) {
        return flag(culebra_h.CUL_LAUNCH_DEPENDENT(), value);
    }

    private KernelCall flag(int flag, boolean value) {
        var flags = cul_launch_args.flags(args);
        cul_launch_args.flags(args, value ? flags | flag : flags & ~flag);
        return this;
    }

    private int nonNegative(int value, String what) {
        if (value < 0) {
            throw new ArgumentException(Status.RANGE, kernel.name(), kernel.module.device().backend(),
                    kernel.name() + ": " + what + " is " + value);
        }
        return value;
    }

    /** Sets a pointer: where the tensor's first element lies. */
    public KernelCall set(int index, Tensor tensor) {
        parameters.set(ValueLayout.JAVA_LONG, kernel.place(index, Long.BYTES, "a tensor's address"), tensor.address().address());
        tensors[index] = tensor;
        given(index);
        return this;
    }

    /** Sets a 32-bit integer. */
    public KernelCall set(int index, int value) {
        parameters.set(ValueLayout.JAVA_INT, kernel.place(index, Integer.BYTES, "an int"), value);
        return scalar(index);
    }

    /** Sets a 64-bit integer. */
    public KernelCall set(int index, long value) {
        parameters.set(ValueLayout.JAVA_LONG, kernel.place(index, Long.BYTES, "a long"), value);
        return scalar(index);
    }

    /** Sets a 32-bit float. */
    public KernelCall set(int index, float value) {
        parameters.set(ValueLayout.JAVA_FLOAT, kernel.place(index, Float.BYTES, "a float"), value);
        return scalar(index);
    }

    /** Sets a 64-bit float. */
    public KernelCall set(int index, double value) {
        parameters.set(ValueLayout.JAVA_DOUBLE, kernel.place(index, Double.BYTES, "a double"), value);
        return scalar(index);
    }

    /** Sets a 16-bit integer, or the bits of a half: {@link Float#floatToFloat16} for one. */
    public KernelCall set(int index, short value) {
        parameters.set(ValueLayout.JAVA_SHORT, kernel.place(index, Short.BYTES, "a short"), value);
        return scalar(index);
    }

    /** Sets an 8-bit integer or a boolean. */
    public KernelCall set(int index, byte value) {
        parameters.set(ValueLayout.JAVA_BYTE, kernel.place(index, Byte.BYTES, "a byte"), value);
        return scalar(index);
    }

    private KernelCall scalar(int index) {
        tensors[index] = null;
        given(index);
        return this;
    }

    private void given(int index) {
        if (!set[index]) {
            set[index] = true;
            missing--;
        }
    }

    /** What messages call a tensor. */
    void name(int index, String name) {
        tensorNames[index] = name;
    }

    /**
     * Queues a launch with the arguments as they are now.
     *
     * @throws ArgumentException if an argument was never set, a tensor or the kernel is of another device, or the grid, the
     *     block, the cluster or the shared memory is more than kernel and device take
     * @throws ClosedException if a tensor, the module or the stream was closed
     * @throws UnsupportedException if the device lacks clusters or dependent launches, or the driver refuses the launch
     */
    public void launch(Stream stream) {
        stream.begin(kernel.name(), 0);
        try {
            launchEntered(stream);
        } finally {
            stream.end();
        }
    }

    /** As {@link #launch}, on a stream that the caller has entered. */
    void launchEntered(Stream stream) {
        if (missing > 0) {
            throw stream.failure(Status.NULL_POINTER, firstMissing() + " was not set; the kernel takes " + set.length);
        }
        if (kernel.module.device() != stream.device()) {
            throw stream.failure(Status.DEVICE, "the " + kernel + " is on another device than the stream, which is of "
                    + stream.device());
        }
        kernel.module.use(stream);
        for (var i = 0; i < tensors.length; i++) {
            var tensor = tensors[i];
            if (tensor != null) {
                stream.in(tensor, tensorNames[i]);
            }
        }
        stream.launch(kernel.handle, args, parameters);
    }

    private String firstMissing() {
        var i = 0;
        while (set[i]) {
            i++;
        }
        return tensorNames[i];
    }
}
