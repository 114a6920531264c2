package dev.culebra;

import dev.culebra.bindings.generated.cul_comm_id;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;

/** What the ranks of one group have in common. Made by one of them; the others get its bytes, on cuda also in other processes. */
public final class CommunicatorId {
    private final byte[] bytes;

    private CommunicatorId(byte[] bytes) {
        this.bytes = bytes;
    }

    /**
     * A new one, for ranks on devices of this backend.
     *
     * @throws UnsupportedException on cuda, if NCCL's library was not found or refuses
     */
    public static CommunicatorId create(Device device) {
        try (var arena = Arena.ofConfined()) {
            var id = cul_comm_id.allocate(arena);
            device.call("comm_unique_id", open -> culebra_h.cul_comm_unique_id(open, id));
            return new CommunicatorId(id.toArray(ValueLayout.JAVA_BYTE));
        }
    }

    /**
     * From the bytes of one.
     *
     * @throws IllegalArgumentException if their number is not that of an id
     */
    public static CommunicatorId of(byte[] bytes) {
        if (bytes.length != cul_comm_id.sizeof()) {
            throw new IllegalArgumentException("an id has " + cul_comm_id.sizeof() + " bytes, not " + bytes.length);
        }
        return new CommunicatorId(bytes.clone());
    }

    /** A copy of its bytes. */
    public byte[] bytes() {
        return bytes.clone();
    }
}
