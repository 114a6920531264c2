package dev.culebra;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.generated.cul_device_id;
import dev.culebra.bindings.generated.cul_dtype;
import dev.culebra.bindings.generated.cul_managed_deleter;
import dev.culebra.bindings.generated.cul_managed_tensor;
import dev.culebra.bindings.generated.cul_managed_tensor_versioned;
import dev.culebra.bindings.generated.cul_tensor;
import dev.culebra.bindings.generated.culebra_h;
import dev.culebra.internal.DescriptorPool;
import dev.culebra.internal.Diagnostics;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Tensors lent to and borrowed from other libraries of the process without a copy, by <a
 * href="https://dmlc.github.io/dlpack/latest/">DLPack</a> version 1.
 *
 * <p>A managed tensor is a C struct that travels as its address. Whoever holds the address calls the struct's deleter, exactly
 * once; {@link #delete} does it for one that nobody took. Memory that is lent stays as it is until then, even if the tensor, its
 * scope and its device are closed before.
 *
 * <p>DLPack knows no streams. Lending waits for the work that was queued on the stream, so that the taker may read at once; the
 * taker has finished its own work when it calls the deleter. What is borrowed must be ready.
 */
public final class Dlpack {
    private static final String OP = "dlpack";

    /** What stays until the taker calls the deleter: the memory, and the struct with what it points to. */
    private record Loan(Lease lease, MemorySegment block) {}

    private static final Map<Long, Loan> LOANS = new ConcurrentHashMap<>();

    /** What every struct of ours names as its deleter. */
    private static final class Deleter {
        static final MemorySegment ENTRY = cul_managed_deleter.allocate(Dlpack::takeBack, Arena.global());
    }

    private Dlpack() {}

    /**
     * Lends a tensor of any strides; waits for the work queued on {@code stream} so far.
     *
     * @return the address of a {@code DLManagedTensorVersioned}
     * @throws ArgumentException if the tensor is of another device than the stream
     * @throws ClosedException if it was closed
     * @throws UnsupportedException during a capture
     */
    public static long lend(Stream stream, Tensor tensor) {
        var block = block(cul_managed_tensor_versioned.sizeof());
        cul_managed_tensor_versioned.major(block, culebra_h.CUL_DLPACK_MAJOR());
        cul_managed_tensor_versioned.minor(block, culebra_h.CUL_DLPACK_MINOR());
        cul_managed_tensor_versioned.deleter(block, Deleter.ENTRY);
        cul_managed_tensor_versioned.flags(block,
                tensor.lease().storage.isReadOnly() ? culebra_h.CUL_DLPACK_READ_ONLY() : 0);
        lend(stream, tensor, block, cul_managed_tensor_versioned.tensor(block), cul_managed_tensor_versioned.sizeof());
        return block.address();
    }

    /**
     * As {@link #lend}, for takers that know the older struct alone.
     *
     * @return the address of a {@code DLManagedTensor}
     * @throws UnsupportedException also if the memory is read-only, which that struct cannot say
     */
    public static long lendUnversioned(Stream stream, Tensor tensor) {
        if (tensor.lease().storage.isReadOnly()) {
            throw refusal(Status.UNSUPPORTED, tensor.device(), tensor
                    + " lies in read-only memory, which a DLManagedTensor without version cannot say");
        }
        var block = block(cul_managed_tensor.sizeof());
        cul_managed_tensor.deleter(block, Deleter.ENTRY);
        lend(stream, tensor, block, cul_managed_tensor.tensor(block), cul_managed_tensor.sizeof());
        return block.address();
    }

    /** A struct, and behind it the extents and strides that it points to. */
    private static MemorySegment block(long structBytes) {
        return Arena.ofAuto().allocate(structBytes + 2L * Long.BYTES * DescriptorPool.MAX_RANK, 16);
    }

    private static void lend(Stream stream, Tensor tensor, MemorySegment block, MemorySegment view, long structBytes) {
        var device = tensor.device();
        stream.enter(OP);
        try {
            stream.in(tensor, "the tensor");
        } finally {
            stream.exit();
        }
        stream.synchronize();
        var layout = tensor.layout();
        var shape = block.asSlice(structBytes, 8L * DescriptorPool.MAX_RANK);
        var strides = block.asSlice(structBytes + shape.byteSize(), shape.byteSize());
        for (var d = 0; d < layout.rank(); d++) {
            shape.setAtIndex(ValueLayout.JAVA_LONG, d, layout.shape()[d]);
            strides.setAtIndex(ValueLayout.JAVA_LONG, d, layout.strides()[d]);
        }
        cul_tensor.data(view, tensor.lease().storage.address);
        device.writeId(cul_tensor.device(view));
        cul_tensor.ndim(view, layout.rank());
        var dtype = cul_tensor.dtype(view);
        cul_dtype.code(dtype, (byte) layout.dtype().code);
        cul_dtype.bits(dtype, (byte) layout.dtype().bits);
        cul_dtype.lanes(dtype, (short) 1);
        cul_tensor.shape(view, shape);
        cul_tensor.strides(view, strides);
        cul_tensor.byte_offset(view, layout.offset_bytes());
        device.lend();
        try {
            LOANS.put(block.address(), new Loan(tensor.holdMemory("a DLPack loan"), block));
        } catch (RuntimeException e) {
            device.returned();
            throw e;
        }
    }

    /** The deleter of our structs. Nothing may leave it: its caller is another library, on a thread of its own. */
    private static void takeBack(MemorySegment managed) {
        try {
            var loan = LOANS.remove(managed.address());
            if (loan == null) {
                Diagnostics.LOG.log(System.Logger.Level.WARNING, "the DLPack deleter was called for 0x"
                        + Long.toHexString(managed.address()) + ", which is not lent: twice, or with another struct");
                return;
            }
            Leases.close(loan.lease);
            loan.lease.storage.device.returned();
        } catch (RuntimeException | Error e) {
            Diagnostics.LOG.log(System.Logger.Level.WARNING, "a DLPack loan could not be taken back", e);
        }
    }

    /** How many tensors are lent out and were not given back: what a test of leaks asks. */
    public static int lent() {
        return LOANS.size();
    }

    /**
     * Takes a {@code DLManagedTensorVersioned} over as a tensor of {@code scope}, without a copy. Its deleter is called when the
     * last view was closed and the work that used it has run, on whichever thread that is. A struct that is refused stays the
     * caller's, with its deleter uncalled. Read-only memory makes a tensor that operators read but refuse to write.
     *
     * @param managed the struct's address, as {@code PyCapsule_GetPointer} gives it; it is trusted
     * @throws UnsupportedException if its major version is not 1, or the device is simt, which computes in memory of its own
     *     alone
     * @throws ArgumentException if it is of another device than the scope (cpu takes pinned, cuda managed memory, too), its
     *     element type is none of {@link DType}, has lanes, or is not aligned, its rank exceeds 8, or a stride is negative or
     *     too large
     * @throws ClosedException if the scope was closed
     */
    public static Tensor borrow(Scope scope, long managed) {
        var struct = memory(managed, cul_managed_tensor_versioned.sizeof());
        var major = cul_managed_tensor_versioned.major(struct);
        if (major != culebra_h.CUL_DLPACK_MAJOR()) {
            throw refusal(Status.UNSUPPORTED, scope.device(), "the struct is of version " + Integer.toUnsignedString(major) + "."
                    + Integer.toUnsignedString(cul_managed_tensor_versioned.minor(struct)) + "; version "
                    + culebra_h.CUL_DLPACK_MAJOR() + " is understood");
        }
        var readOnly = (cul_managed_tensor_versioned.flags(struct) & culebra_h.CUL_DLPACK_READ_ONLY()) != 0;
        return borrow(scope, struct, cul_managed_tensor_versioned.tensor(struct), readOnly,
                cul_managed_tensor_versioned.deleter(struct));
    }

    /** As {@link #borrow}, of a {@code DLManagedTensor}: the struct without a version. */
    public static Tensor borrowUnversioned(Scope scope, long managed) {
        var struct = memory(managed, cul_managed_tensor.sizeof());
        return borrow(scope, struct, cul_managed_tensor.tensor(struct), false, cul_managed_tensor.deleter(struct));
    }

    /**
     * Calls the deleter of a {@code DLManagedTensorVersioned} that nobody took.
     *
     * @throws ArgumentException if the address is 0
     */
    public static void delete(long managed) {
        var struct = memory(managed, cul_managed_tensor_versioned.sizeof());
        delete(cul_managed_tensor_versioned.deleter(struct), struct);
    }

    /** As {@link #delete}, of a {@code DLManagedTensor}: the struct without a version. */
    public static void deleteUnversioned(long managed) {
        var struct = memory(managed, cul_managed_tensor.sizeof());
        delete(cul_managed_tensor.deleter(struct), struct);
    }

    private static void delete(MemorySegment deleter, MemorySegment struct) {
        if (deleter.address() != 0) {
            cul_managed_deleter.invoke(deleter, struct);
        }
    }

    private static MemorySegment memory(long address, long bytes) {
        if (address == 0) {
            throw new ArgumentException(Status.NULL_POINTER, OP, null, OP + ": the struct's address is 0");
        }
        return Native.memory(MemorySegment.ofAddress(address), bytes, Arena.global());
    }

    private static Tensor borrow(Scope scope, MemorySegment struct, MemorySegment view, boolean readOnly, MemorySegment deleter) {
        var device = scope.device();
        checkDevice(device, cul_device_id.type(cul_tensor.device(view)), cul_device_id.index(cul_tensor.device(view)));
        var layout = layout(device, view);
        var data = cul_tensor.data(view).address();
        return scope.wrapForeign(OP, data == 0 ? 0 : data + cul_tensor.byte_offset(view), readOnly, layout,
                () -> delete(deleter, struct));
    }

    private static void checkDevice(Device device, int type, int index) {
        var matches = switch (device.backend()) {
            case CPU -> type == culebra_h.CUL_DEVICE_CPU() || type == culebra_h.CUL_DEVICE_CUDA_HOST();
            case CUDA -> (type == culebra_h.CUL_DEVICE_CUDA() || type == culebra_h.CUL_DEVICE_CUDA_MANAGED())
                    && index == device.info().index();
            case SIMT -> true; // refused with its own words
        };
        if (!matches) {
            throw refusal(Status.DEVICE, device, "the tensor is on DLPack's device (" + type + ", " + index
                    + ") but the scope is of " + device);
        }
    }

    private static Layout layout(Device device, MemorySegment view) {
        var dtype = dtype(device, cul_tensor.dtype(view));
        var rank = cul_tensor.ndim(view);
        if (rank < 0 || rank > DescriptorPool.MAX_RANK) {
            throw refusal(Status.SHAPE, device, "the rank is " + rank + "; 0 to " + DescriptorPool.MAX_RANK + " are supported");
        }
        if (rank > 0 && cul_tensor.shape(view).address() == 0) {
            throw refusal(Status.NULL_POINTER, device, "the shape's address is 0");
        }
        var compact = Layout.rowMajor(dtype, longs(cul_tensor.shape(view), rank));
        if (cul_tensor.strides(view).address() == 0) {
            return compact;
        }
        var strides = longs(cul_tensor.strides(view), rank);
        for (var d = 0; d < rank; d++) {
            if (strides[d] < 0) {
                throw refusal(Status.STRIDE, device, "stride " + d + " is " + strides[d] + "; negative strides are not supported");
            }
        }
        var layout = new Layout(dtype, compact.shape(), strides, 0);
        if (layout.reachBytes() < 0) {
            throw refusal(Status.STRIDE, device, "strides " + Arrays.toString(strides) + " of " + layout
                    + " reach beyond 2^63 bytes");
        }
        return layout;
    }

    private static long[] longs(MemorySegment at, int count) {
        return count == 0 ? new long[0] : memory(at.address(), 8L * count).toArray(ValueLayout.JAVA_LONG);
    }

    private static DType dtype(Device device, MemorySegment type) {
        var code = cul_dtype.code(type) & 0xFF;
        var bits = cul_dtype.bits(type) & 0xFF;
        var lanes = cul_dtype.lanes(type) & 0xFFFF;
        for (var dtype : DType.values()) {
            if (dtype.code == code && dtype.bits == bits && lanes == 1) {
                return dtype;
            }
        }
        throw refusal(Status.DTYPE, device, "the element type of code " + code + ", " + bits + " bits and " + lanes
                + " lanes is none of Culebra's");
    }

    private static CulebraException refusal(Status status, Device device, String text) {
        return CulebraException.of(status, OP, device.backend(), OP + ": " + text);
    }
}
