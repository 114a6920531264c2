package dev.culebra;

import dev.culebra.bindings.generated.cul_dtype;
import dev.culebra.bindings.generated.cul_tensor;
import dev.culebra.internal.DescriptorPool;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A strided view of elements of one type in a device's memory. Shape and strides never change. Closing a tensor frees
 * its memory, in stream order, once no other view of it is open. Belongs to a {@link Scope}, which closes it at the
 * latest. Can be used by several threads; what queued work writes may be read by work on the same stream, or after an
 * {@link Event} or {@link Stream#synchronize}.
 *
 * <p>Methods that move data to or from the host and take no {@link HostBuffer} wait for all work queued on the stream
 * so far. They take any strides, while {@link #upload}, {@link #download} and {@link #fill} want {@link
 * #isContiguous()}.
 */
public final class Tensor implements AutoCloseable {
    private static final AtomicLong COUNT = new AtomicLong();

    private final Lease lease;
    private final Layout layout;
    private final String name;

    /** Kept reachable: its cleaner would close this tensor. */
    private volatile Scope scope;

    private Tensor(Scope scope, Storage storage, Layout layout, String name, String maker) {
        var device = storage.device;
        this.scope = scope;
        this.layout = layout;
        this.name = name;
        this.lease = new Lease(scope.leases(), storage, describe(device, storage, layout), this + " made by " + maker);
        if (!scope.leases().add(lease)) {
            lease.markClosed();
            lease.release();
            throw scope.closed();
        }
    }

    /** The first tensor in {@code storage}, whose owner it becomes. */
    static Tensor first(Scope scope, Storage storage, Layout layout, String maker) {
        return new Tensor(scope, storage, layout, "#" + COUNT.incrementAndGet(), maker);
    }

    private Tensor view(Layout viewed, String maker) {
        if (lease.isClosed() || !lease.storage.retain()) {
            throw lease.closedException(maker, "the tensor");
        }
        return new Tensor(scope, lease.storage, viewed, name, maker);
    }

    private static MemorySegment describe(Device device, Storage storage, Layout layout) {
        var slot = device.descriptors().take();
        cul_tensor.data(slot, storage.address);
        device.writeId(cul_tensor.device(slot));
        cul_tensor.ndim(slot, layout.rank());
        var dtype = cul_tensor.dtype(slot);
        cul_dtype.code(dtype, (byte) layout.dtype().code);
        cul_dtype.bits(dtype, (byte) layout.dtype().bits);
        cul_dtype.lanes(dtype, (short) 1);
        cul_tensor.shape(slot, MemorySegment.ofAddress(slot.address() + DescriptorPool.SHAPE_OFFSET_BYTES));
        cul_tensor.strides(slot, MemorySegment.ofAddress(slot.address() + DescriptorPool.STRIDES_OFFSET_BYTES));
        cul_tensor.byte_offset(slot, layout.offset_bytes());
        for (var d = 0; d < layout.rank(); d++) {
            slot.set(ValueLayout.JAVA_LONG, DescriptorPool.SHAPE_OFFSET_BYTES + 8L * d, layout.shape()[d]);
            slot.set(ValueLayout.JAVA_LONG, DescriptorPool.STRIDES_OFFSET_BYTES + 8L * d, layout.strides()[d]);
        }
        return slot;
    }

    // ---------------------------------------------------------------------------------------------------- properties

    /** The device whose memory it is in. */
    public Device device() {
        return lease.storage.device;
    }

    /** The element type. */
    public DType dtype() {
        return layout.dtype();
    }

    /** The number of dimensions, 0 to 8. */
    public int rank() {
        return layout.rank();
    }

    /** The extents, a fresh array. */
    public long[] shape() {
        return layout.shape().clone();
    }

    /** One extent; a negative {@code dimension} counts from the end: -1 is the last. */
    public long size(int dimension) {
        return layout.shape()[index(dimension, "size")];
    }

    /** The strides in elements, a fresh array. */
    public long[] strides() {
        return layout.strides().clone();
    }

    /** One stride in elements; a negative {@code dimension} counts from the end. */
    public long stride(int dimension) {
        return layout.strides()[index(dimension, "stride")];
    }

    /** The number of elements: the product of the extents, 1 for rank 0. */
    public long elements() {
        return layout.elements();
    }

    /** The size of the elements in bytes, gaps between them not counted. */
    public long bytes() {
        return layout.bytes();
    }

    /** If the elements lie in row-major order without gaps. */
    public boolean isContiguous() {
        return layout.isContiguous();
    }

    /** If it was closed, itself or with its scope. */
    public boolean isClosed() {
        return lease.isClosed();
    }

    // --------------------------------------------------------------------------------------------------------- views

    /** Elements {@code from} to {@code to} - 1 along {@code dimension}. */
    public Tensor slice(int dimension, long from, long to) {
        var d = index(dimension, "slice");
        var extent = layout.shape()[d];
        if (from < 0 || from > to || to > extent) {
            throw shapeError("slice", "range " + from + " to " + to + " of dimension " + d + ", which has " + extent
                    + " elements");
        }
        var shape = layout.shape().clone();
        shape[d] = to - from;
        return view(layout.at(shape, layout.strides(), from * layout.strides()[d]), "slice");
    }

    /** Element {@code at} of {@code dimension}, which disappears. */
    public Tensor select(int dimension, long at) {
        var d = index(dimension, "select");
        if (at < 0 || at >= layout.shape()[d]) {
            throw shapeError("select", "element " + at + " of dimension " + d + ", which has " + layout.shape()[d]);
        }
        var offset = at * layout.strides()[d];
        return view(layout.at(without(layout.shape(), d), without(layout.strides(), d), offset), "select");
    }

    /** Dimensions {@code a} and {@code b} exchanged. */
    public Tensor transpose(int a, int b) {
        var order = new int[rank()];
        Arrays.setAll(order, i -> i);
        var first = index(a, "transpose");
        var second = index(b, "transpose");
        order[first] = second;
        order[second] = first;
        return permute(order);
    }

    /** Dimension {@code order[i]} becomes dimension i. */
    public Tensor permute(int... order) {
        var shape = new long[rank()];
        var strides = new long[rank()];
        var seen = new boolean[rank()];
        if (order.length != rank()) {
            throw shapeError("permute", order.length + " dimensions named, but the rank is " + rank());
        }
        for (var i = 0; i < order.length; i++) {
            var d = index(order[i], "permute");
            if (seen[d]) {
                throw shapeError("permute", "dimension " + d + " is named twice in " + Arrays.toString(order));
            }
            seen[d] = true;
            shape[i] = layout.shape()[d];
            strides[i] = layout.strides()[d];
        }
        return view(layout.at(shape, strides, 0), "permute");
    }

    /**
     * The same elements in another shape; one extent may be -1 and is then computed.
     *
     * @throws ArgumentException if the number of elements differs, or the strides allow no such view; {@link
     *     #contiguous} makes a copy that does
     */
    public Tensor reshape(long... shape) {
        var extents = inferred(shape);
        var strides = layout.isContiguous() ? Layout.compactStrides(extents) : splitAndMerge(extents);
        return view(layout.at(Layout.rowMajor(dtype(), extents).shape(), strides, 0), "reshape");
    }

    private long[] inferred(long[] shape) {
        var extents = shape.clone();
        var known = 1L;
        var unknown = -1;
        for (var d = 0; d < extents.length; d++) {
            if (extents[d] != -1) {
                var product = known * extents[d];
                if (Math.multiplyHigh(known, extents[d]) != product >> 63) {
                    throw shapeError("reshape", Arrays.toString(shape) + " does not have " + elements() + " elements");
                }
                known = product;
            } else if (unknown >= 0) {
                throw shapeError("reshape", Arrays.toString(shape) + " leaves two extents open");
            } else {
                unknown = d;
            }
        }
        if (unknown >= 0 && known != 0) {
            extents[unknown] = elements() / known;
            known *= extents[unknown];
        }
        if (known != elements() || unknown >= 0 && extents[unknown] == -1) {
            throw shapeError("reshape", Arrays.toString(shape) + " does not have " + elements() + " elements");
        }
        return extents;
    }

    /** Strides for {@code extents}: runs of dimensions that lie compactly are split and merged at will. */
    private long[] splitAndMerge(long[] extents) {
        var strides = new long[extents.length];
        var source = rank() - 1;
        var target = extents.length - 1;
        while (source >= 0) {
            // One run: the fewest dimensions on both sides with the same number of elements.
            var stride = layout.strides()[source];
            var from = layout.shape()[source];
            var expected = stride * from;
            source--;
            var to = 1L;
            while (true) {
                if (to < from && target >= 0) {
                    strides[target] = stride * to;
                    to *= extents[target--];
                } else if (to > from && source >= 0) {
                    if (layout.shape()[source] != 1 && layout.strides()[source] != expected) {
                        throw shapeError("reshape", "strides " + Arrays.toString(layout.strides())
                                + " allow no view as " + Arrays.toString(extents) + "; make it contiguous first");
                    }
                    from *= layout.shape()[source];
                    expected = stride * from;
                    source--;
                } else {
                    break;
                }
            }
        }
        for (; target >= 0; target--) {
            strides[target] = elements();
        }
        return strides;
    }

    /**
     * Dimension {@code dimension}, of one element, repeated {@code size} times without a copy: its stride is 0.
     *
     * @throws ArgumentException if that dimension has another extent, or the result would have more than 2^63 bytes
     */
    public Tensor expand(int dimension, long size) {
        var d = index(dimension, "expand");
        if (layout.shape()[d] != 1 || size < 0) {
            throw shapeError("expand", "dimension " + d + " has " + layout.shape()[d] + " elements, to become " + size
                    + "; it must have 1");
        }
        var shape = layout.shape().clone();
        var strides = layout.strides().clone();
        shape[d] = size;
        strides[d] = 0;
        Layout.checkSize(dtype(), shape);
        return view(layout.at(shape, strides, 0), "expand");
    }

    /** The same bits as elements of another type of the same size. */
    public Tensor bitcast(DType dtype) {
        if (dtype.bytes() != dtype().bytes()) {
            throw new ArgumentException(Status.DTYPE, "bitcast", device().backend(),
                    "bitcast: " + this + " to " + dtype + ", whose elements have another size");
        }
        return view(new Layout(dtype, layout.shape(), layout.strides(), layout.offset_bytes()), "bitcast");
    }

    /** A row-major copy in fresh memory of the same scope, made by {@code stream}. */
    public Tensor contiguous(Stream stream) {
        var copy = scope.allocate(dtype(), layout.shape());
        try {
            Ops.copyStrided(stream, this, copy);
            return copy;
        } catch (RuntimeException e) {
            copy.close();
            throw e;
        }
    }

    // ---------------------------------------------------------------------------------------------------------- data

    /** Sets every byte to 0; queued. */
    public void zero(Stream stream) {
        fill(stream, 0);
    }

    /** Sets every byte to the lowest eight bits of {@code value}; queued. */
    public void fill(Stream stream, int value) {
        stream.enter("fill");
        try {
            stream.out(this, "the tensor");
            requireContiguous(stream);
            if (bytes() > 0) {
                stream.fill(address(), value, bytes());
            }
        } finally {
            stream.exit();
        }
    }

    /**
     * Copies {@code source}, of the same shape and type, into this tensor; queued. On one device any strides will do;
     * from or to cpu both must be contiguous, and queued work of the other device's streams is not waited for.
     */
    public void copyFrom(Stream stream, Tensor source) {
        if (source.dtype() != dtype() || !Arrays.equals(source.layout.shape(), layout.shape())) {
            throw new ArgumentException(source.dtype() == dtype() ? Status.SHAPE : Status.DTYPE, "copy",
                    device().backend(),
                    "copy: from " + source + " to " + this + "; shape and type must be the same");
        }
        if (source.device() == device() && !(isContiguous() && source.isContiguous())) {
            Ops.copyStrided(stream, source, this);
            return;
        }
        stream.enter("copy");
        try {
            requireContiguous(stream);
            source.requireContiguous(stream);
            var here = stream.device();
            if (here != device() && here != source.device()) {
                throw stream.failure(Status.DEVICE, "neither " + this + " nor " + source
                        + " is on the stream's device, " + here);
            }
            if (device() != source.device()
                    && (here == device() ? source : this).device().backend() != Backend.CPU) {
                throw stream.failure(Status.DEVICE, "from " + source.device() + " to " + device()
                        + "; one of them must be cpu");
            }
            if (lease.storage.isReadOnly()) {
                throw stream.failure(Status.UNSUPPORTED, this + " lies in read-only memory and cannot be written");
            }
            stream.useMemory(lease, "the target");
            stream.useMemory(source.lease, "the source");
            if (lease.storage == source.lease.storage
                    && layout.offset_bytes() < source.layout.offset_bytes() + bytes()
                    && source.layout.offset_bytes() < layout.offset_bytes() + bytes()) {
                throw stream.failure(Status.RANGE, "the source and the target, " + this + ", overlap");
            }
            if (bytes() > 0) {
                stream.copy(address(), source.address(), bytes());
            }
        } finally {
            stream.exit();
        }
    }

    /** Copies all of {@code source}, which has exactly this tensor's bytes, into this tensor, and waits. */
    public void upload(Stream stream, MemorySegment source) {
        HostCopy.upload(stream, this, source);
    }

    /** Queues a copy from a pinned buffer, from {@code offset_bytes} on, into this tensor. */
    public void upload(Stream stream, HostBuffer source, long offset_bytes) {
        HostCopy.upload(stream, this, source, offset_bytes);
    }

    /** Copies this tensor into {@code target}, which has exactly its bytes, and waits. */
    public void download(Stream stream, MemorySegment target) {
        HostCopy.download(stream, this, target);
    }

    /** Queues a copy of this tensor into a pinned buffer, from {@code offset_bytes} on. */
    public void download(Stream stream, HostBuffer target, long offset_bytes) {
        HostCopy.download(stream, this, target, offset_bytes);
    }

    /** Sets the elements, in row-major order, rounded to this tensor's float type. */
    public void setFloats(Stream stream, float... values) {
        HostCopy.setFloats(stream, this, values);
    }

    /** The elements of a float tensor, in row-major order. */
    public float[] floats(Stream stream) {
        return HostCopy.floats(stream, this);
    }

    /** Sets the elements of an {@link DType#I32} tensor, in row-major order. */
    public void setInts(Stream stream, int... values) {
        HostCopy.set(stream, this, MemorySegment.ofArray(values), DType.I32);
    }

    /** The elements of an {@link DType#I32} tensor, in row-major order. */
    public int[] ints(Stream stream) {
        return HostCopy.ints(stream, this);
    }

    /** Sets the elements of an {@link DType#I64} tensor, in row-major order. */
    public void setLongs(Stream stream, long... values) {
        HostCopy.set(stream, this, MemorySegment.ofArray(values), DType.I64);
    }

    /** The elements of an {@link DType#I64} tensor, in row-major order. */
    public long[] longs(Stream stream) {
        return HostCopy.longs(stream, this);
    }

    /** Sets the elements from their bytes, in row-major order, little endian. */
    public void setBytes(Stream stream, byte... values) {
        HostCopy.set(stream, this, MemorySegment.ofArray(values), dtype());
    }

    /** The bytes of the elements, in row-major order, little endian. */
    public byte[] bytes(Stream stream) {
        return HostCopy.bytes(stream, this);
    }

    /**
     * The memory of a contiguous cpu tensor as Java sees it, without a copy; waits for the work queued on {@code stream} so
     * far. What is written there is seen by work queued later.
     *
     * @throws UnsupportedException if the tensor is not on cpu
     */
    public HostView hostView(Stream stream) {
        return HostView.of(stream, this);
    }

    /**
     * The address of its first element: a CUDA device pointer on cuda. For other libraries; valid as long as the tensor, or
     * another view of its memory, is open. Work that they do with it is not ordered with that of streams.
     *
     * @throws ClosedException if it was closed
     */
    public long pointer() {
        if (lease.isClosed()) {
            throw lease.closedException("pointer", "the tensor");
        }
        return address().address();
    }

    // ------------------------------------------------------------------------------------------------------ lifetime

    /**
     * Hands it to another scope of the same device.
     *
     * @return this tensor
     * @throws ClosedException if it or that scope was closed
     */
    public Tensor moveTo(Scope target) {
        if (target.device() != device()) {
            throw new ArgumentException(Status.DEVICE, "move", device().backend(), "move: " + this + " is on "
                    + device()
                    + " but the scope is of " + target.device());
        }
        if (!Leases.move(lease, target.leases())) {
            throw target.isClosed() ? target.closed() : lease.closedException("move", "the tensor");
        }
        scope = target;
        return this;
    }

    /** Closes this view, and frees the memory if it was the last one: in stream order, without waiting. */
    @Override
    public void close() {
        Leases.close(lease);
    }

    /** {@code tensor #12 f32[4, 8]}. */
    @Override
    public String toString() {
        return "tensor " + name + " " + layout;
    }

    // ----------------------------------------------------------------------------------------------------- internals

    Lease lease() {
        return lease;
    }

    Scope scope() {
        return scope;
    }

    Layout layout() {
        return layout;
    }

    /** Another owner's part in its memory, which keeps that as long as it is open. */
    Lease holdMemory(String what) {
        if (lease.isClosed() || !lease.storage.retain()) {
            throw lease.closedException(what, "the tensor");
        }
        var hold = new Lease(new Leases(device(), null), lease.storage, null, what + " of " + this);
        hold.leases.add(hold);
        return hold;
    }

    /** Where the first element lies. */
    MemorySegment address() {
        return MemorySegment.ofAddress(lease.storage.address.address() + layout.offset_bytes());
    }

    void requireContiguous(Stream stream) {
        if (!isContiguous()) {
            throw stream.failure(Status.STRIDE, this + " has strides " + Arrays.toString(layout.strides())
                    + "; it must be contiguous, as contiguous(stream) makes it");
        }
    }

    private int index(int dimension, String op) {
        var d = dimension < 0 ? dimension + rank() : dimension;
        if (d < 0 || d >= rank()) {
            throw shapeError(op, "dimension " + dimension + " of rank " + rank());
        }
        return d;
    }

    private static long[] without(long[] values, int d) {
        var rest = new long[values.length - 1];
        System.arraycopy(values, 0, rest, 0, d);
        System.arraycopy(values, d + 1, rest, d, rest.length - d);
        return rest;
    }

    private ArgumentException shapeError(String op, String fault) {
        return new ArgumentException(Status.SHAPE, op, device().backend(), op + " of " + this + ": " + fault);
    }
}
