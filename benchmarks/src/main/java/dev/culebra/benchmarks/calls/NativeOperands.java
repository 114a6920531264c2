package dev.culebra.benchmarks.calls;

import dev.culebra.Backend;
import dev.culebra.bindings.Native;
import dev.culebra.bindings.NativeLibrary;
import dev.culebra.bindings.generated.cul_device_id;
import dev.culebra.bindings.generated.cul_device_info;
import dev.culebra.bindings.generated.cul_device_options;
import dev.culebra.bindings.generated.cul_dtype;
import dev.culebra.bindings.generated.cul_tensor;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** A device, a stream and the operands of the small operators, made with the C ABI alone. */
final class NativeOperands implements AutoCloseable {
    // As the API's own blocks: freed by the collector, so that an access checks no lifetime.
    private final Arena arena = Arena.ofAuto();
    private final List<MemorySegment> memory = new ArrayList<>();
    private final MemorySegment device;
    private final MemorySegment info;
    private final MemorySegment out = arena.allocate(16, 16);

    final MemorySegment stream;
    final MemorySegment x;
    final MemorySegment weight;
    final MemorySegment y;
    final MemorySegment temperature;
    final MemorySegment topK;
    final MemorySegment topP;
    final MemorySegment minP;
    final MemorySegment seed;
    final MemorySegment position;
    final MemorySegment ids;

    NativeOperands(String backend) {
        NativeLibrary.load();
        var options = arena.allocate(cul_device_options.layout());
        cul_device_options.struct_size(options, (int) options.byteSize());
        cul_device_options.threads(options, 1);
        var number = Backend.valueOf(backend.toUpperCase(Locale.ROOT)).ordinal();
        Native.check(culebra_h.cul_device_open(number, 0, options, out));
        device = out.get(ValueLayout.ADDRESS, 0);
        info = arena.allocate(cul_device_info.layout());
        cul_device_info.struct_size(info, (int) info.byteSize());
        Native.check(culebra_h.cul_device_get_info(device, info));
        Native.check(culebra_h.cul_stream_create(device, out));
        stream = out.get(ValueLayout.ADDRESS, 0);

        x = floats(Calls.X, 1, Calls.X.length);
        weight = floats(Calls.WEIGHT, Calls.WEIGHT.length);
        y = floats(Calls.X, 1, Calls.X.length);
        temperature = floats(Calls.TEMPERATURE, 1);
        topK = ints(Calls.TOP_K);
        topP = floats(Calls.TOP_P, 1);
        minP = floats(Calls.MIN_P, 1);
        seed = longs(Calls.SEED);
        position = longs(Calls.POSITION);
        ids = ints(new int[] {-1});
    }

    private MemorySegment floats(float[] values, long... shape) {
        return tensor(arena.allocateFrom(ValueLayout.JAVA_FLOAT, values), culebra_h.CUL_FLOAT(), 32, shape);
    }

    private MemorySegment ints(int[] values) {
        return tensor(arena.allocateFrom(ValueLayout.JAVA_INT, values), culebra_h.CUL_INT(), 32, values.length);
    }

    private MemorySegment longs(long[] values) {
        return tensor(arena.allocateFrom(ValueLayout.JAVA_LONG, values), culebra_h.CUL_INT(), 64, values.length);
    }

    private MemorySegment tensor(MemorySegment contents, int code, int bits, long... shape) {
        Native.check(culebra_h.cul_memory_alloc(device, contents.byteSize(), out));
        var data = out.get(ValueLayout.ADDRESS, 0);
        memory.add(data);
        Native.check(culebra_h.cul_copy(stream, data, contents, contents.byteSize()));
        Native.check(culebra_h.cul_stream_synchronize(stream));
        var descriptor = arena.allocate(cul_tensor.layout());
        cul_tensor.data(descriptor, data);
        cul_device_id.type(cul_tensor.device(descriptor), cul_device_id.type(cul_device_info.id(info)));
        cul_tensor.ndim(descriptor, shape.length);
        cul_dtype.code(cul_tensor.dtype(descriptor), (byte) code);
        cul_dtype.bits(cul_tensor.dtype(descriptor), (byte) bits);
        cul_dtype.lanes(cul_tensor.dtype(descriptor), (short) 1);
        cul_tensor.shape(descriptor, arena.allocateFrom(ValueLayout.JAVA_LONG, shape));
        return descriptor;
    }

    void synchronize() {
        Native.check(culebra_h.cul_stream_synchronize(stream));
    }

    float[] normalised() {
        return download(y, 4L * Calls.X.length).toArray(ValueLayout.JAVA_FLOAT);
    }

    int drawn() {
        return download(ids, 4).get(ValueLayout.JAVA_INT, 0);
    }

    private MemorySegment download(MemorySegment tensor, long bytes) {
        var copy = arena.allocate(bytes, 16);
        Native.check(culebra_h.cul_copy(stream, copy, cul_tensor.data(tensor), bytes));
        synchronize();
        return copy;
    }

    @Override
    public void close() {
        Native.check(culebra_h.cul_stream_destroy(stream));
        for (var data : memory) {
            Native.check(culebra_h.cul_memory_free(device, data));
        }
        Native.check(culebra_h.cul_device_close(device));
    }
}
