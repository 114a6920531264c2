package dev.culebra;

import dev.culebra.bindings.generated.cul_op_info;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.List;

/**
 * The operators. Each method checks its arguments, queues its work on the stream and returns: it allocates no memory
 * but the stream's workspace, never waits for the device and never reads its memory. Outputs are tensors of the caller.
 * A null stands for an optional tensor that is absent. Results are the same bits from run to run.
 *
 * <p>Every method throws {@link ArgumentException} for a required tensor that is null, for shapes, element types,
 * strides, alignment, devices and attributes outside its contract, {@link UnsupportedException} where the backend or
 * the device lacks the operator, {@link ClosedException} for a tensor or stream that was closed, {@link
 * ConcurrentUseException} for a stream in use by another thread, {@link MemoryException} where the workspace cannot
 * grow, and {@link DeviceFailedException} once the device has failed; nothing is queued then.
 */
public final class Ops extends GlueOps {
    private Ops() {}

    /** All operators, with the backends that have them. */
    public static List<OpInfo> list() {
        Natives.load();
        var list = new ArrayList<OpInfo>();
        try (var arena = Arena.ofConfined()) {
            var info = arena.allocate(cul_op_info.layout());
            cul_op_info.struct_size(info, (int) info.byteSize());
            for (var i = 0; i < culebra_h.cul_op_count(); i++) {
                Natives.check(culebra_h.cul_op_get_info(i, info), "op_get_info", null);
                var backends = EnumSet.noneOf(Backend.class);
                for (var backend : Backend.values()) {
                    if ((cul_op_info.backends(info) >>> backend.ordinal() & 1) != 0) {
                        backends.add(backend);
                    }
                }
                var dtypes = cul_op_info.dtypes(info).getString(0);
                list.add(new OpInfo(
                        cul_op_info.name(info).getString(0),
                        cul_op_info.family(info).getString(0),
                        Collections.unmodifiableSet(backends),
                        dtypes.isBlank() ? List.of() : List.of(dtypes.split(" ")),
                        computeCapabilities(cul_op_info.kernels(info))));
            }
        }
        return list;
    }

    private static List<String> computeCapabilities(int kernels) {
        var list = new ArrayList<String>();
        if ((kernels & culebra_h.CUL_KERNELS_80()) != 0) {
            list.add("8.0");
        }
        if ((kernels & culebra_h.CUL_KERNELS_90()) != 0) {
            list.add("9.0");
        }
        return List.copyOf(list);
    }
}
