package dev.culebra;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.generated.cul_batch_call;
import dev.culebra.bindings.generated.cul_launch_args;
import dev.culebra.bindings.generated.cul_op_call;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The calls that {@link Stream#prepare} sees, and what they use; its owner is the stream's. */
final class CallRecorder {
    private static final long ALIGNMENT_BYTES = 64;

    /** One call. Blocks are copies: args, and what they point to. */
    private record Call(String name, int kind, int value, long target, byte[] args, long inner, byte[] innerBytes, long bytes) {}

    private static final byte[] NOTHING = {};

    private final List<Call> calls = new ArrayList<>();
    private final Map<Lease, String> leases = new LinkedHashMap<>();
    private final Map<Uses, String> others = new LinkedHashMap<>();
    private long workspaceBytes;

    /** An operator that was checked: its args struct, and the struct that args may point to. */
    void operator(String op, MemorySegment args, MemorySegment nested, long neededBytes) {
        var bytes = bytes(args.asSlice(0, cul_op_call.struct_size(args)));
        calls.add(new Call(op, culebra_h.CUL_BATCH_OP(), 0, Native.function("cul_" + op).address(), bytes, nested.address(),
                points(bytes, nested.address()) ? bytes(nested) : NOTHING, 0));
        workspaceBytes = Math.max(workspaceBytes, neededBytes);
    }

    void copy(String op, MemorySegment target, MemorySegment source, long bytes) {
        calls.add(new Call(op, culebra_h.CUL_BATCH_COPY(), 0, target.address(), NOTHING, source.address(), NOTHING, bytes));
    }

    void fill(String op, MemorySegment target, int value, long bytes) {
        calls.add(new Call(op, culebra_h.CUL_BATCH_FILL(), value, target.address(), NOTHING, 0, NOTHING, bytes));
    }

    void launch(String name, MemorySegment kernel, MemorySegment args, MemorySegment parameters) {
        calls.add(new Call(name, culebra_h.CUL_BATCH_LAUNCH(), 0, kernel.address(), bytes(args), parameters.address(),
                bytes(parameters.asSlice(0, cul_launch_args.parameter_bytes(args))), 0));
    }

    void use(Lease lease, String name) {
        leases.putIfAbsent(lease, name);
    }

    void use(Uses uses, String name) {
        others.putIfAbsent(uses, name);
    }

    /** What the operators need at most. */
    long workspaceBytes() {
        return workspaceBytes;
    }

    /** The calls as the native library takes them, with a workspace of {@link #workspaceBytes}. */
    Prepared finish(Stream stream, MemorySegment workspace) {
        var size = calls.size() * cul_batch_call.sizeof();
        for (var call : calls) {
            size = aligned(size) + call.args.length;
            size = aligned(size) + call.innerBytes.length;
        }
        var block = Arena.ofAuto().allocate(Math.max(size, 1), ALIGNMENT_BYTES);
        var end = calls.size() * cul_batch_call.sizeof();
        for (var i = 0; i < calls.size(); i++) {
            var call = calls.get(i);
            var args = put(block, end, call.args);
            end = aligned(end) + call.args.length;
            var inner = put(block, end, call.innerBytes);
            end = aligned(end) + call.innerBytes.length;
            redirect(args, call.inner, inner);
            if (call.kind == culebra_h.CUL_BATCH_OP()) {
                cul_op_call.flags(args, cul_op_call.flags(args) & ~culebra_h.CUL_OP_PLAN_ONLY());
                cul_op_call.workspace(args, workspace);
                cul_op_call.workspace_bytes(args, workspaceBytes);
            }
            var entry = block.asSlice(i * cul_batch_call.sizeof(), cul_batch_call.sizeof());
            cul_batch_call.kind(entry, call.kind);
            cul_batch_call.value(entry, call.value);
            cul_batch_call.target(entry, MemorySegment.ofAddress(call.target));
            cul_batch_call.args(entry, call.kind == culebra_h.CUL_BATCH_COPY() ? MemorySegment.ofAddress(call.inner) : args);
            cul_batch_call.bytes(entry, call.bytes);
        }
        return new Prepared(stream, block, calls.stream().map(Call::name).toArray(String[]::new),
                leases.keySet().toArray(Lease[]::new), leases.values().toArray(String[]::new),
                others.keySet().toArray(Uses[]::new), others.values().toArray(String[]::new), workspace);
    }

    private static MemorySegment put(MemorySegment block, long end, byte[] bytes) {
        var place = block.asSlice(aligned(end), bytes.length);
        MemorySegment.copy(bytes, 0, place, ValueLayout.JAVA_BYTE, 0, bytes.length);
        return place;
    }

    private static long aligned(long offset) {
        return (offset + ALIGNMENT_BYTES - 1) & -ALIGNMENT_BYTES;
    }

    private static byte[] bytes(MemorySegment segment) {
        return segment.toArray(ValueLayout.JAVA_BYTE);
    }

    private static boolean points(byte[] args, long address) {
        var words = MemorySegment.ofArray(args);
        for (var offset = 0L; offset + Long.BYTES <= args.length; offset += Long.BYTES) {
            if (words.get(ValueLayout.JAVA_LONG_UNALIGNED, offset) == address) {
                return true;
            }
        }
        return false;
    }

    /** Pointers to a struct become pointers to its copy. */
    private static void redirect(MemorySegment args, long from, MemorySegment to) {
        if (to.byteSize() == 0) {
            return;
        }
        for (var offset = 0L; offset + Long.BYTES <= args.byteSize(); offset += Long.BYTES) {
            if (args.get(ValueLayout.JAVA_LONG, offset) == from) {
                args.set(ValueLayout.JAVA_LONG, offset, to.address());
            }
        }
    }
}
