package dev.culebra;

import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * Calls that {@link Stream#prepare} recorded, to be made again and again: all of them in one native call, which checks and
 * queues each as if it had been called by itself. It allocates nothing on the Java heap. It belongs to its stream, owns the
 * operators' workspace, and can be run while the stream is captured.
 *
 * <p>Between it and a {@link Graph}: a list costs nothing to make and works on every backend alike, but each kernel is
 * launched by itself.
 */
public final class Prepared implements AutoCloseable {
    /** The workspace, given back behind the work that uses it. */
    private static final class Workspace extends Uses {
        final Device device;
        final MemorySegment memory;

        Workspace(Device device, MemorySegment memory) {
            this.device = device;
            this.memory = memory;
        }

        @Override
        public boolean queue(Stream stream) {
            return memory.address() == 0 || stream.free(memory);
        }

        @Override
        public void now() {
            if (memory.address() != 0) {
                device.free("memory_free", "a workspace", handle -> culebra_h.cul_memory_free(handle, memory));
            }
        }
    }

    private static final String NAME = "prepared_run";

    private final Stream stream;
    private final MemorySegment calls;
    private final String[] names;
    private final Lease[] leases;
    private final String[] leaseNames;
    private final Uses[] others;
    private final String[] otherNames;
    private final Workspace workspace;
    private volatile boolean closed;

    Prepared(Stream stream, MemorySegment calls, String[] names, Lease[] leases, String[] leaseNames, Uses[] others,
            String[] otherNames, MemorySegment workspace) {
        this.stream = stream;
        this.calls = calls;
        this.names = names;
        this.leases = leases;
        this.leaseNames = leaseNames;
        this.others = others;
        this.otherNames = otherNames;
        this.workspace = new Workspace(stream.device(), workspace);
    }

    /** The stream that it runs on. */
    public Stream stream() {
        return stream;
    }

    /** How many calls it makes. */
    public int calls() {
        return names.length;
    }

    /**
     * Queues the calls, in their order.
     *
     * @throws ClosedException if it, its stream, or one of the tensors was closed; nothing is queued then
     * @throws CulebraException if a call is refused; those before it are queued
     */
    public void run() {
        stream.enterCalls(NAME);
        try {
            stream.use(workspace, "the workspace of prepared calls");
            if (closed) {
                throw stream.failure(Status.CLOSED, "the prepared calls were closed; prepare them again");
            }
            for (var i = 0; i < leases.length; i++) {
                stream.useMemory(leases[i], leaseNames[i]);
            }
            for (var i = 0; i < others.length; i++) {
                stream.use(others[i], otherNames[i]);
                if (others[i].isReleased()) {
                    throw stream.failure(Status.CLOSED, otherNames[i] + " was closed");
                }
            }
            var done = stream.result();
            var status = culebra_h.cul_batch(stream.handle(), calls, names.length, done);
            if (status != culebra_h.CUL_OK()) {
                throw refused(status, done.get(ValueLayout.JAVA_LONG, 0));
            }
            stream.counters().preparedRuns++;
            stream.counters().operators += names.length;
        } finally {
            stream.end();
        }
    }

    private CulebraException refused(int status, long at) {
        var cause = Natives.failure(status, NAME, stream.device().backend());
        if (at >= names.length) {
            return cause;
        }
        var text = NAME + ": call " + at + " of " + names.length + ", " + names[(int) at] + ": " + cause.getMessage();
        return CulebraException.of(cause.status(), names[(int) at], stream.device().backend(), text);
    }

    /** If it was closed. */
    public boolean isClosed() {
        return closed;
    }

    /** Gives the workspace back behind the work that uses it; does not wait. */
    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        stream.device().forget(this);
        workspace.drop();
        Release.start(stream.device(), workspace.streams(), null, workspace);
    }
}
