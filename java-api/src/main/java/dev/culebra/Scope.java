package dev.culebra;

import java.lang.foreign.MemorySegment;
import java.lang.ref.Cleaner;
import java.util.concurrent.atomic.AtomicBoolean;
import org.jspecify.annotations.Nullable;

/**
 * The owner of tensors: closing it closes them, the youngest first, and the scopes opened in it. A scope can be used by
 * several threads. A scope that becomes unreachable, with all its tensors, before it was closed is closed by a cleaner,
 * which reports it as a leak where {@code -Dculebra.paranoid=true}.
 */
public final class Scope implements AutoCloseable {
    private static final Cleaner CLEANER = Cleaner.create(
            Thread.ofPlatform().name("culebra-cleaner").daemon().factory());

    private final Leases leases;

    /** Keeps the parent reachable, which would close this scope. */
    @SuppressWarnings("unused")
    private final @Nullable Scope parent;

    private final Cleaner.Cleanable cleanable;

    Scope(Leases leases, @Nullable Scope parent) {
        this.leases = leases;
        this.parent = parent;
        this.cleanable = CLEANER.register(this, leases::closeAbandoned);
    }

    /** The device of the tensors. */
    public Device device() {
        return leases.device;
    }

    /**
     * A scope that is closed with this one at the latest.
     *
     * @throws ClosedException if this scope was closed
     */
    public Scope openScope() {
        var child = new Leases(leases.device, leases);
        if (!leases.addChild(child)) {
            throw closed();
        }
        return new Scope(child, this);
    }

    /**
     * A tensor in fresh device memory with unspecified contents, row-major.
     *
     * @throws MemoryException if the device's memory, or the limit set on it, is exhausted
     * @throws ArgumentException if an extent is negative, there are more than 8, or the size overflows
     * @throws UnsupportedException while a stream of the device is captured
     * @throws ClosedException if the scope was closed
     */
    public Tensor allocate(DType dtype, long... shape) {
        var layout = Layout.rowMajor(dtype, shape);
        var storage = Storage.allocate(leases.device, layout.elements() * dtype.bytes());
        return Tensor.first(this, storage, layout, "allocate");
    }

    /** As {@link #allocate}, filled with zeros by {@code stream}. */
    public Tensor zeros(Stream stream, DType dtype, long... shape) {
        var tensor = allocate(dtype, shape);
        try {
            tensor.zero(stream);
            return tensor;
        } catch (RuntimeException e) {
            tensor.close();
            throw e;
        }
    }

    /** An {@link DType#F32} tensor of these values; they are on the device when the call returns. */
    public Tensor floats(Stream stream, float[] values, long... shape) {
        return floats(stream, DType.F32, values, shape);
    }

    /** A tensor of these values, rounded to {@code dtype}; they are on the device when the call returns. */
    public Tensor floats(Stream stream, DType dtype, float[] values, long... shape) {
        var tensor = allocate(dtype, shape);
        try {
            tensor.setFloats(stream, values);
            return tensor;
        } catch (RuntimeException e) {
            tensor.close();
            throw e;
        }
    }

    /** An {@link DType#I32} tensor of these values; they are on the device when the call returns. */
    public Tensor ints(Stream stream, int[] values, long... shape) {
        var tensor = allocate(DType.I32, shape);
        try {
            tensor.setInts(stream, values);
            return tensor;
        } catch (RuntimeException e) {
            tensor.close();
            throw e;
        }
    }

    /** An {@link DType#I64} tensor of these values; they are on the device when the call returns. */
    public Tensor longs(Stream stream, long[] values, long... shape) {
        var tensor = allocate(DType.I64, shape);
        try {
            tensor.setLongs(stream, values);
            return tensor;
        } catch (RuntimeException e) {
            tensor.close();
            throw e;
        }
    }

    /**
     * A tensor over memory of the host, without a copy. Closing it does not free the memory, which stays reachable
     * until queued work has passed; an arena that is closed by hand must be kept open until then. Read-only memory
     * makes a tensor that operators read but refuse to write.
     *
     * @param memory a native segment, 16-byte aligned, of exactly the tensor's size
     * @throws UnsupportedException if the device does not compute in memory of the host: only cpu does
     * @throws ClosedException if the scope or the segment's arena was closed
     * @throws ArgumentException if the segment is on the Java heap, not aligned or of another size
     */
    public Tensor wrap(MemorySegment memory, DType dtype, long... shape) {
        var layout = Layout.rowMajor(dtype, shape);
        var device = leases.device;
        if (device.backend() != Backend.CPU) {
            throw new UnsupportedException(Status.UNSUPPORTED, "wrap", device.backend(), "wrap: " + device
                    + " does not compute in memory of the host; allocate a tensor and upload to it");
        }
        if (!memory.scope().isAlive()) {
            throw new ClosedException("wrap", device.backend(), "wrap: the segment's arena was closed");
        }
        if (!memory.isNative()) {
            throw new ArgumentException(Status.DEVICE, "wrap", device.backend(),
                    "wrap: the segment is on the Java heap; native memory is needed");
        }
        if (memory.byteSize() != layout.bytes()) {
            throw new ArgumentException(Status.SHAPE, "wrap", device.backend(), "wrap: the segment has "
                    + memory.byteSize()
                    + " bytes but " + layout + " takes " + layout.bytes());
        }
        if (memory.address() % 16 != 0) {
            throw new ArgumentException(Status.ALIGNMENT, "wrap", device.backend(), "wrap: the address 0x"
                    + Long.toHexString(memory.address()) + " is not 16-byte aligned");
        }
        return Tensor.first(this, Storage.borrow(device, memory), layout, "wrap");
    }

    /**
     * A row-major tensor over memory at an address that another library owns, without a copy: a CUDA device pointer on cuda,
     * a pointer of the process on cpu. The address is trusted; what is behind it must stay valid until {@code release}.
     *
     * @param pointer of the first element, aligned to the element type; operators ask for 16 bytes
     * @param release called once, on any thread, when the last view was closed and the work that used it has run; never if
     *     this call throws
     * @throws UnsupportedException on simt, which computes in memory of its own alone
     * @throws ArgumentException if the address is 0 or not aligned, or the shape is not legal
     */
    public Tensor wrapPointer(long pointer, Runnable release, DType dtype, long... shape) {
        return wrapForeign("wrap", pointer, false, Layout.rowMajor(dtype, shape), release);
    }

    /** A tensor of any strides over memory of another library. */
    Tensor wrapForeign(String op, long pointer, boolean readOnly, Layout layout, Runnable release) {
        var device = leases.device;
        if (device.backend() == Backend.SIMT) {
            throw new UnsupportedException(Status.UNSUPPORTED, op, Backend.SIMT, op + ": " + device
                    + " computes in memory of its own alone");
        }
        if (pointer == 0 && layout.elements() > 0) {
            throw new ArgumentException(Status.NULL_POINTER, op, device.backend(), op + ": the address is 0");
        }
        if (pointer % layout.dtype().bytes() != 0) {
            throw new ArgumentException(Status.ALIGNMENT, op, device.backend(), op + ": the address 0x"
                    + Long.toHexString(pointer) + " is not aligned to an element of " + layout.dtype().bytes() + " bytes");
        }
        if (isClosed()) {
            throw closed();
        }
        // The memory becomes ours when there is a tensor; whoever comes second, that or its end, gives it back.
        var second = new AtomicBoolean();
        Runnable giveBack = () -> {
            if (!second.compareAndSet(false, true)) {
                release.run();
            }
        };
        var tensor = Tensor.first(this, Storage.foreign(device, pointer, layout.reachBytes(), readOnly, giveBack), layout, op);
        giveBack.run();
        return tensor;
    }

    /** How many tensors are open in it, those of inner scopes apart. */
    public int openTensors() {
        return leases.size();
    }

    /** If it was closed, itself or with what it belongs to. */
    public boolean isClosed() {
        return leases.isClosed();
    }

    /** Closes its tensors and inner scopes, in stream order; does not wait. */
    @Override
    public void close() {
        leases.close();
        cleanable.clean();
    }

    Leases leases() {
        return leases;
    }

    ClosedException closed() {
        return new ClosedException(null, leases.device.backend(), "the scope was closed; open another one");
    }
}
