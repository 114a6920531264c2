package dev.culebra;

import dev.culebra.internal.Numeric;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A call of a {@link TritonKernel} on one device: grid and arguments, launched as often as wanted with what was last set.
 * Each launch takes the most specialized variant whose assumptions the arguments meet. A launch allocates nothing on the
 * Java heap. One thread at a time. The device closes it at the latest.
 */
public final class TritonCall implements AutoCloseable {
    /** Why a variant does not take an argument. */
    private enum Fault {
        UNSET,
        TYPE,
        DIVISIBILITY,
        CONSTANT
    }

    /** A variant, its call, and what its arguments lack. */
    private static final class Candidate {
        final TritonVariant variant;
        final CudaModule module;
        final KernelCall call;
        final int[] places; // of each argument among the kernel's parameters; -1: a constant
        final @Nullable Fault[] faults;
        final int scratchAt; // the first of the trailing pointers
        final int trailing;
        int faultCount;

        Candidate(TritonVariant variant, CudaModule module, Kernel kernel) {
            this.variant = variant;
            this.module = module;
            this.call = kernel.prepare().block(32 * variant.warps(), 1, 1).shared(variant.sharedBytes())
                    .cooperative(variant.isCooperative()).dependent(variant.isDependent());
            if (variant.ctas() > 1) {
                call.cluster(variant.ctas(), 1, 1);
            }
            var parameters = variant.parameters();
            places = new int[parameters.size()];
            faults = new Fault[places.length];
            var at = 0;
            for (var i = 0; i < places.length; i++) {
                var isConstant = parameters.get(i).type().kind() == TritonType.Kind.CONSTANT;
                places[i] = isConstant ? -1 : at++;
                if (!isConstant) {
                    note(i, Fault.UNSET);
                    call.name(places[i], parameters.get(i).name());
                }
            }
            scratchAt = at;
            trailing = kernel.parameters() - at;
            for (var i = 0; i < trailing; i++) {
                call.set(scratchAt + i, 0L);
            }
        }

        void note(int argument, @Nullable Fault fault) {
            faultCount += (fault == null ? 0 : 1) - (faults[argument] == null ? 0 : 1);
            faults[argument] = fault;
        }

        String describe() {
            var text = new StringBuilder();
            for (var i = 0; i < faults.length; i++) {
                var parameter = variant.parameters().get(i);
                var fault = faults[i];
                if (fault != null) {
                    text.append(text.isEmpty() ? "" : ", ").append(parameter.name()).append(switch (fault) {
                        case UNSET -> " was not set";
                        case TYPE -> " must be " + parameter.type();
                        case DIVISIBILITY -> " must be divisible by " + parameter.divisor();
                        case CONSTANT -> " must be " + parameter.value();
                    });
                }
            }
            return variant.file() + ": " + text;
        }
    }

    private final TritonKernel kernel;
    private final Device device;
    private final List<Candidate> candidates;
    private final Map<String, Integer> indices = new HashMap<>();
    private long gridBlocks = 1;

    private TritonCall(TritonKernel kernel, Device device, List<Candidate> candidates) {
        this.kernel = kernel;
        this.device = device;
        this.candidates = candidates;
        for (var name : kernel.parameters()) {
            indices.put(name, indices.size());
        }
        grid(1, 1, 1);
    }

    static TritonCall prepare(TritonKernel kernel, Device device, List<TritonVariant> variants) {
        var candidates = new ArrayList<Candidate>();
        try {
            for (var variant : variants) {
                var module = CudaModule.load(device, variant.image(), variant.file());
                try {
                    var loaded = module.kernel(variant.kernel());
                    checkParameters(kernel, variant, loaded);
                    candidates.add(new Candidate(variant, module, loaded));
                } catch (RuntimeException e) {
                    module.close();
                    throw e;
                }
            }
        } catch (RuntimeException e) {
            candidates.forEach(candidate -> candidate.module.close());
            throw e;
        }
        return new TritonCall(kernel, device, candidates);
    }

    /** The image must declare the parameters of the signature, and behind them at most the two pointers to scratch. */
    private static void checkParameters(TritonKernel kernel, TritonVariant variant, Kernel loaded) {
        var expected = variant.parameters().stream().filter(p -> p.type().kind() != TritonType.Kind.CONSTANT).toList();
        var trailing = loaded.parameters() - expected.size();
        if (trailing < 0 || trailing > 2) {
            throw kernel.failure(Status.RANGE, variant.file() + ": the image declares " + loaded.parameters()
                    + " parameters; the signature's " + expected.size() + " and two pointers to scratch make "
                    + (expected.size() + 2));
        }
        for (var i = 0; i < loaded.parameters(); i++) {
            var bytes = i < expected.size() ? expected.get(i).type().bytes() : Long.BYTES;
            if (loaded.parameterBytes(i) != bytes) {
                throw kernel.failure(Status.RANGE, variant.file() + ": parameter " + i + " of the image has "
                        + loaded.parameterBytes(i) + " bytes; " + (i < expected.size()
                                ? expected.get(i).name() + " is " + expected.get(i).type() + ", which has " : "a pointer to scratch has ")
                        + bytes);
            }
        }
        if (variant.globalScratch().bytes() > 0 && trailing < 1 || variant.profileScratch().bytes() > 0 && trailing < 2) {
            throw kernel.failure(Status.RANGE, variant.file() + ": the metadata asks for scratch memory, but the image has no"
                    + " parameter for it");
        }
    }

    /** The number of program instances each way, as in Triton (1 at first). Checked when it is launched. */
    public TritonCall grid(int x, int y, int z) {
        for (var candidate : candidates) {
            var blocks = (long) x * candidate.variant.ctas();
            if (blocks > Integer.MAX_VALUE) {
                throw kernel.failure(Status.RANGE, "a grid of " + x + " clusters of " + candidate.variant.ctas() + " blocks");
            }
            candidate.call.grid((int) blocks, y, z);
        }
        gridBlocks = (long) x * y * z;
        return this;
    }

    /** Sets a pointer argument: where the tensor's first element lies. Its strides are for other arguments to tell. */
    public TritonCall set(String name, Tensor tensor) {
        var i = index(name);
        var accepted = false;
        for (var candidate : candidates) {
            var parameter = candidate.variant.parameters().get(i);
            if (parameter.type().element() != tensor.dtype()) {
                candidate.note(i, Fault.TYPE);
                continue;
            }
            accepted = true;
            candidate.call.set(candidate.places[i], tensor);
            candidate.note(i, tensor.address().address() % parameter.divisor() == 0 ? null : Fault.DIVISIBILITY);
        }
        if (!accepted) {
            throw wrongType(i, name, tensor + " is " + tensor.dtype());
        }
        return this;
    }

    /** Sets an integer of any width; also a constexpr, to choose among variants of which some have it as a constant. */
    public TritonCall set(String name, long value) {
        var i = index(name);
        var accepted = false;
        for (var candidate : candidates) {
            var parameter = candidate.variant.parameters().get(i);
            var type = parameter.type();
            if (type.kind() == TritonType.Kind.CONSTANT && parameter.value() instanceof Long constant) {
                accepted = true;
                candidate.note(i, constant == value ? null : Fault.CONSTANT);
            } else if (type.kind() != TritonType.Kind.INTEGER || !type.holds(value)) {
                candidate.note(i, Fault.TYPE);
            } else {
                accepted = true;
                integer(candidate.call, candidate.places[i], type.bytes(), value);
                candidate.note(i, value % parameter.divisor() == 0 ? null : Fault.DIVISIBILITY);
            }
        }
        if (!accepted) {
            throw wrongType(i, name, "the integer " + value);
        }
        return this;
    }

    private static void integer(KernelCall call, int place, int bytes, long value) {
        switch (bytes) {
            case 1 -> call.set(place, (byte) value);
            case 2 -> call.set(place, (short) value);
            case 4 -> call.set(place, (int) value);
            default -> call.set(place, value);
        }
    }

    /** Sets a float of any width, rounded to it. */
    public TritonCall set(String name, double value) {
        var i = index(name);
        var accepted = false;
        for (var candidate : candidates) {
            var type = candidate.variant.parameters().get(i).type();
            if (type.kind() != TritonType.Kind.FLOAT) {
                candidate.note(i, Fault.TYPE);
                continue;
            }
            accepted = true;
            var place = candidate.places[i];
            switch (type.text()) {
                case "fp16" -> candidate.call.set(place, Float.floatToFloat16((float) value));
                case "bf16" -> candidate.call.set(place, Numeric.toBf16((float) value));
                case "fp64" -> candidate.call.set(place, value);
                default -> candidate.call.set(place, (float) value);
            }
            candidate.note(i, null);
        }
        if (!accepted) {
            throw wrongType(i, name, "the float " + value);
        }
        return this;
    }

    private int index(String name) {
        var index = indices.get(name);
        if (index == null) {
            throw kernel.failure(Status.RANGE, "there is no parameter \"" + name + "\"; the kernel has "
                    + String.join(", ", kernel.parameters()));
        }
        return index;
    }

    private CulebraException wrongType(int i, String name, String given) {
        var types = candidates.stream().map(candidate -> candidate.variant.parameters().get(i).type().text()).distinct().toList();
        return kernel.failure(Status.DTYPE, name + " is " + String.join(" or ", types) + ", but " + given);
    }

    /** The file name, without suffix, of the variant that a launch with the arguments as they are now takes. */
    public String variant() {
        return chosen().variant.file();
    }

    private Candidate chosen() {
        for (var i = 0; i < candidates.size(); i++) {
            var candidate = candidates.get(i);
            if (candidate.faultCount == 0) {
                return candidate;
            }
        }
        var text = new StringBuilder("no variant takes these arguments");
        candidates.forEach(candidate -> text.append("; ").append(candidate.describe()));
        throw kernel.failure(Status.RANGE, text.toString());
    }

    /**
     * Queues a launch with the arguments as they are now. Scratch memory that the kernel needs is the stream's workspace.
     *
     * @throws ArgumentException if no variant takes the arguments (each says why), a tensor is of another device, or the
     *     grid is empty or too large
     * @throws ClosedException if a tensor, this call or the stream was closed
     * @throws UnsupportedException if the driver refuses the launch, or a capture lacks workspace
     */
    public void launch(Stream stream) {
        var candidate = chosen();
        stream.begin(kernel.name(), 0);
        try {
            provideScratch(stream, candidate);
            candidate.call.launchEntered(stream);
        } finally {
            stream.end();
        }
    }

    private void provideScratch(Stream stream, Candidate candidate) {
        var variant = candidate.variant;
        var blocks = gridBlocks * variant.ctas();
        var globalBytes = variant.globalScratch().bytes() * blocks;
        var profileBytes = variant.profileScratch().bytes() * blocks;
        if (globalBytes + profileBytes == 0) {
            return;
        }
        var alignment = Math.max(variant.globalScratch().alignment(), variant.profileScratch().alignment());
        var globalRoom = Math.ceilDiv(globalBytes, alignment) * alignment;
        if (alignment > 256) {
            throw stream.failure(Status.UNSUPPORTED, "scratch memory aligned to " + alignment + " bytes; the workspace is to 256");
        }
        var address = stream.workspace(globalRoom + profileBytes).address();
        candidate.call.set(candidate.scratchAt, address);
        if (candidate.trailing > 1) {
            candidate.call.set(candidate.scratchAt + 1, profileBytes == 0 ? 0 : address + globalRoom);
        }
    }

    /** The device that it is prepared for. */
    public Device device() {
        return device;
    }

    /** Gives its part in the loaded modules back; they are unloaded when nobody uses them any more. */
    @Override
    public void close() {
        candidates.forEach(candidate -> candidate.module.close());
    }
}
