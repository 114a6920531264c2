package dev.culebra;

import dev.culebra.bindings.generated.cul_checkpoint;
import dev.culebra.bindings.generated.cul_device_id;
import dev.culebra.bindings.generated.cul_pack_plan_result;
import dev.culebra.bindings.generated.cul_pack_weights_args;
import dev.culebra.bindings.generated.cul_tensor;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/**
 * A quantized weight matrix [N, K] in the layout of its device's kernels: made by {@link Ops#packWeights}, never
 * changed. Belongs to the scope that it was made in.
 *
 * <p><b>Another device.</b> The layout is that of the device it was packed for. A product on a stream of another one,
 * even of the same backend, is an {@link ArgumentException} of status {@link Status#DEVICE}; pack the checkpoint there.
 *
 * <p><b>Another product.</b> Bits, sparsity and operand were chosen when packing; a product that takes others is an
 * {@link ArgumentException} of status {@link Status#RANGE} that names both.
 *
 * <p><b>After close</b> every use is a {@link ClosedException}. Products that were queued before it are not harmed: the
 * memory is given back once every stream that used it has passed them.
 *
 * <p><b>Several streams.</b> Products only read it, so any number of streams, in any number of threads, may use it at
 * once. Packing is work of one stream: another one waits for it before its first product, by {@link Stream#waitFor}
 * or because the first was synchronized.
 */
public final class PackedWeights implements AutoCloseable {
    private static final WeightFormat[] FORMATS = WeightFormat.values();

    private final WeightFormat format;
    private final int bits;
    private final int group;
    private final long n;
    private final long k;
    private final CheckpointWeights.Scaling scaling;
    private final CheckpointWeights.Sparsity sparsity;
    private final CheckpointWeights.Operand operand;
    private final long packedGroup;
    private final Tensor packed;
    private final Tensor scales;
    private final @Nullable Tensor zeros;
    private final @Nullable Tensor perm;
    private final @Nullable Tensor groupSource;

    private PackedWeights(
            CheckpointWeights source,
            long packedGroup,
            Tensor packed,
            Tensor scales,
            @Nullable Tensor zeros,
            @Nullable Tensor perm,
            @Nullable Tensor groupSource) {
        this.format = source.format();
        this.bits = source.bits();
        this.group = source.group();
        this.n = source.n();
        this.k = source.k();
        this.scaling = source.scaling();
        this.sparsity = source.sparsity();
        this.operand = source.operand();
        this.packedGroup = packedGroup;
        this.packed = packed;
        this.scales = scales;
        this.zeros = zeros;
        this.perm = perm;
        this.groupSource = groupSource;
    }

    static PackedWeights pack(Stream stream, Scope scope, CheckpointWeights source) {
        var device = stream.device();
        if (scope.device() != device) {
            throw new ArgumentException(Status.DEVICE, "pack_weights", device.backend(),
                    "pack_weights: the scope is of " + scope.device() + " but the stream is of " + device);
        }
        // What is allocated here belongs to the caller's scope only when all of it has succeeded.
        try (var building = device.openScope(); var arena = Arena.ofConfined()) {
            var plan = new Plan(stream, source, arena);
            var isF8 = source.qweight().dtype() == DType.F8E4M3;
            var packed = building.allocate(isF8 ? DType.F8E4M3 : DType.U8, plan.packedBytes);
            var scales = building.allocate(source.scales().dtype(), plan.groups, plan.scaleColumns);
            var zeros = plan.symmetric ? null : building.allocate(DType.U8, plan.groups, plan.paddedN);
            Tensor perm = null;
            Tensor groupSource = null;
            if (plan.perm != null) {
                perm = building.allocate(DType.I32, plan.paddedK);
                perm.upload(stream, plan.perm);
                groupSource = building.allocate(DType.I32, plan.groups);
                groupSource.upload(stream, plan.groupSource);
            }
            var resolved = source.withFormat(plan.format);
            var weights = new PackedWeights(resolved, plan.group, packed, scales, zeros, perm, groupSource);
            weights.fill(stream, resolved);
            for (var tensor : new Tensor[] {packed, scales, zeros, perm, groupSource}) {
                if (tensor != null) {
                    tensor.moveTo(scope);
                }
            }
            return weights;
        }
    }

    private void fill(Stream stream, CheckpointWeights source) {
        var args = stream.begin("pack_weights", cul_pack_weights_args.sizeof());
        try {
            cul_pack_weights_args.checkpoint(args, source.describe(stream, false));
            cul_pack_weights_args.perm(args, stream.optional(perm, "perm"));
            cul_pack_weights_args.group_source(args, stream.optional(groupSource, "group_source"));
            cul_pack_weights_args.packed(args, stream.out(packed, "packed"));
            cul_pack_weights_args.packed_scales(args, stream.out(scales, "packed_scales"));
            cul_pack_weights_args.packed_zeros(args, stream.optionalOut(zeros, "packed_zeros"));
            cul_pack_weights_args.packed_group(args, packedGroup);
            while (stream.again(culebra_h.cul_pack_weights(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /** The sizes of the packed tensors, and the order of k in them, as the native library plans them on the host. */
    private static final class Plan {
        final WeightFormat format;
        final long group;
        final boolean symmetric;
        final long paddedN;
        final long paddedK;
        final long groups;
        final long scaleColumns;
        final long packedBytes;
        final @Nullable MemorySegment perm;
        final @Nullable MemorySegment groupSource;

        Plan(Stream stream, CheckpointWeights source, Arena arena) {
            var checkpoint = arena.allocate(cul_checkpoint.layout());
            var descriptors = checkpoint(stream, source, arena);
            source.fill(checkpoint, descriptors[0], descriptors[1], descriptors[2], descriptors[3]);
            var result = arena.allocate(cul_pack_plan_result.layout());
            cul_pack_plan_result.struct_size(result, (int) result.byteSize());
            plan(stream, checkpoint, result, MemorySegment.NULL, MemorySegment.NULL);
            format = FORMATS[cul_pack_plan_result.format(result)];
            group = cul_pack_plan_result.group(result);
            symmetric = cul_pack_plan_result.symmetric(result) != 0;
            paddedN = cul_pack_plan_result.n_padded(result);
            paddedK = cul_pack_plan_result.k_padded(result);
            groups = cul_pack_plan_result.groups(result);
            scaleColumns = cul_pack_plan_result.scale_columns(result);
            packedBytes = cul_pack_plan_result.packed_bytes(result);
            if (cul_pack_plan_result.permuted(result) != 0) {
                perm = arena.allocate(ValueLayout.JAVA_INT, paddedK);
                groupSource = arena.allocate(ValueLayout.JAVA_INT, groups);
                plan(stream, checkpoint, result, perm, groupSource);
            } else {
                perm = null;
                groupSource = null;
            }
        }

        private static void plan(
                Stream stream, MemorySegment checkpoint, MemorySegment result, MemorySegment perm,
                        MemorySegment groupSource) {
            stream.device().call("pack_weights",
                    handle -> culebra_h.cul_pack_plan(handle, checkpoint, result, perm, groupSource));
        }

        /**
         * Descriptors of qweight, scales, zeros and g_idx: the last two, and weights whose sparsity is to be seen, with
         * their contents on the host.
         */
        private static MemorySegment[] checkpoint(Stream stream, CheckpointWeights source, Arena arena) {
            stream.enter("pack_weights");
            try {
                var qweight = stream.in(source.qweight(), "qweight");
                return new MemorySegment[] {
                    source.sparsity() == CheckpointWeights.Sparsity.NONE
                            ? copy(qweight, arena) : onHost(stream, qweight, source.qweight(), arena),
                    copy(stream.in(source.scales(), "scales"), arena),
                    onHost(stream, stream.optional(source.zeros(), "zeros"), source.zeros(), arena),
                    onHost(stream, stream.optional(source.groupIndex(), "g_idx"), source.groupIndex(), arena)
                };
            } finally {
                stream.exit();
            }
        }

        private static MemorySegment copy(MemorySegment descriptor, Arena arena) {
            return arena.allocate(descriptor.byteSize(), 16).copyFrom(descriptor);
        }

        private static MemorySegment onHost(
                Stream stream, MemorySegment descriptor, @Nullable Tensor tensor, Arena arena) {
            if (tensor == null) {
                return MemorySegment.NULL;
            }
            tensor.requireContiguous(stream);
            var contents = arena.allocate(Math.max(tensor.bytes(), 1), 16);
            if (tensor.bytes() > 0) {
                stream.copyAndWait(contents, tensor.address(), tensor.bytes());
            }
            var host = copy(descriptor, arena);
            cul_tensor.data(host, contents);
            cul_tensor.byte_offset(host, 0);
            var id = cul_tensor.device(host);
            cul_device_id.type(id, Backend.CPU.deviceType);
            cul_device_id.index(id, 0);
            return host;
        }
    }

    /** The checkpoint's format; never GPTQ_AUTO, but what it turned out to be. */
    public WeightFormat format() {
        return format;
    }

    /** Bits of a weight. */
    public int bits() {
        return bits;
    }

    /** The checkpoint's group: -1, 32, 64 or 128. */
    public int group() {
        return group;
    }

    /** Which weights share a scale. */
    public CheckpointWeights.Scaling scaling() {
        return scaling;
    }

    /** Where weights are zero by construction. */
    public CheckpointWeights.Sparsity sparsity() {
        return sparsity;
    }

    /** What they are multiplied with. */
    public CheckpointWeights.Operand operand() {
        return operand;
    }

    /** Output features. */
    public long n() {
        return n;
    }

    /** Input features. */
    public long k() {
        return k;
    }

    /** The device that it was packed for. */
    public Device device() {
        return packed.device();
    }

    /** If zero points differ from the middle of the range. */
    public boolean hasZeros() {
        return zeros != null;
    }

    /** If the order of k was changed: act-order, or groups of unequal size. */
    public boolean isPermuted() {
        return perm != null;
    }

    /** What it takes in the device's memory. */
    public long bytes() {
        return bytes(packed) + bytes(scales) + bytes(zeros) + bytes(perm) + bytes(groupSource);
    }

    private static long bytes(@Nullable Tensor tensor) {
        return tensor == null ? 0 : tensor.bytes();
    }

    /** If it was closed, itself or with its scope. */
    public boolean isClosed() {
        return packed.isClosed();
    }

    /** Frees it, in stream order. */
    @Override
    public void close() {
        for (var tensor : new Tensor[] {packed, scales, zeros, perm, groupSource}) {
            if (tensor != null) {
                tensor.close();
            }
        }
    }

    /** {@code packed weights gptq_v1 int4 [5120, 4096] group 128}. */
    @Override
    public String toString() {
        return "packed weights " + format + " " + (packed.dtype() == DType.F8E4M3 ? "f8e4m3" : "int" + bits)
                + (sparsity == CheckpointWeights.Sparsity.TWO_OF_FOUR ? " 2:4" : "")
                + " [" + n + ", " + k + "] "
                + (scaling == CheckpointWeights.Scaling.BLOCK128 ? "blocks of 128" : "group " + group)
                + (operand == CheckpointWeights.Operand.BYTE ? " for bytes" : "");
    }

    /** These weights for a call on {@code stream}, which takes them packed in this way alone. */
    static PackedWeights require(
            Stream stream,
            @Nullable PackedWeights w,
            int bits,
            CheckpointWeights.Sparsity sparsity,
            CheckpointWeights.Operand operand) {
        if (w == null) {
            throw stream.failure(Status.NULL_POINTER, "w is null");
        }
        if (w.device() != stream.device()) {
            throw stream.failure(Status.DEVICE, "w, " + w + ", was packed for " + w.device() + " but the stream is of "
                    + stream.device() + "; pack the checkpoint there");
        }
        if (w.bits != bits) {
            throw stream.failure(Status.RANGE, "w, " + w + ", was packed with " + w.bits + " bits; here " + bits
                    + " are needed");
        }
        if (w.sparsity != sparsity) {
            throw stream.failure(Status.RANGE, "w, " + w + ", was packed with sparsity " + w.sparsity + "; here "
                    + sparsity + " is needed");
        }
        if (w.operand != operand) {
            throw stream.failure(Status.RANGE, "w, " + w + ", was packed for the operand " + w.operand + "; here "
                    + operand + " is needed");
        }
        return w;
    }

    Tensor packed() {
        return packed;
    }

    Tensor scales() {
        return scales;
    }

    @Nullable Tensor zeros() {
        return zeros;
    }

    @Nullable Tensor perm() {
        return perm;
    }

    @Nullable Tensor groupSource() {
        return groupSource;
    }

    long packedGroup() {
        return packedGroup;
    }
}
