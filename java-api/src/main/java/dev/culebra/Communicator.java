package dev.culebra;

import dev.culebra.bindings.generated.cul_all_to_all_args;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.time.Duration;
import org.jspecify.annotations.Nullable;

/**
 * One rank of a group whose devices exchange blocks of memory, on their streams. On cuda the ranks are GPUs, of one or several
 * processes, and NCCL carries the messages. On cpu and simt they are devices or streams of this process.
 *
 * <p>All ranks make the same calls in the same order, each on one stream at a time. On cpu and simt a rank waits for the others no longer than its group's
 * limit; then, or if one of them closes its communicator, aborts or fails, the exchange fails on all devices that take part in
 * it, and these stay failed. On cuda there is no limit: {@link #abort} ends a wait. On simt a device runs the queue of one thread
 * at a time: ranks are driven by one thread, or have a device each.
 *
 * <p>Belongs to its device, which closes it at the latest. Can be used by several threads.
 */
public final class Communicator implements AutoCloseable {
    /** How long a rank waits for the others where nothing else is said. */
    public static final Duration DEFAULT_TIMEOUT = Duration.ofMinutes(1);

    private static final Duration LONGEST_TIMEOUT = Duration.ofMillis(Integer.MAX_VALUE);

    /** The native handle, given back when nothing queued uses it. */
    private static final class Handle extends Uses {
        final Device device;
        final MemorySegment address;

        Handle(Device device, MemorySegment address) {
            this.device = device;
            this.address = address;
        }

        @Override
        public boolean queue(Stream stream) {
            return false;
        }

        @Override
        public void now() {
            device.free("comm_destroy", "a communicator", ignored -> culebra_h.cul_comm_destroy(address));
        }
    }

    private final Device device;
    private final Handle handle;
    private final int rank;
    private final int ranks;
    private boolean closed;

    private Communicator(Device device, MemorySegment address, int rank, int ranks) {
        this.device = device;
        this.handle = new Handle(device, address);
        this.rank = rank;
        this.ranks = ranks;
    }

    /** As {@link #join(Device, CommunicatorId, int, int, Duration)}, with {@link #DEFAULT_TIMEOUT}. */
    public static Communicator join(Device device, CommunicatorId id, int rank, int ranks) {
        return join(device, id, rank, ranks, DEFAULT_TIMEOUT);
    }

    /**
     * Joins the group of {@code id}. On cuda this returns when all ranks have joined: each needs a thread of its own.
     *
     * @param rank 0 to ranks - 1, each once
     * @param timeout how long an exchange waits for the other ranks, from 1 ms to about 24 days; of no effect on cuda
     * @throws ArgumentException if the rank is outside of the group or was taken, the others said another number of ranks, or the
     *     id is of another backend or was used up
     * @throws UnsupportedException on cuda, if NCCL's library was not found or refuses
     */
    public static Communicator join(Device device, CommunicatorId id, int rank, int ranks, Duration timeout) {
        try (var arena = Arena.ofConfined()) {
            var bytes = arena.allocateFrom(ValueLayout.JAVA_BYTE, id.bytes());
            var millis = timeout.compareTo(LONGEST_TIMEOUT) > 0 ? Integer.MAX_VALUE : (int) Math.max(timeout.toMillis(), 0);
            var address = device.with(open -> Natives.pointer(device.backend(), "comm_create",
                    out -> culebra_h.cul_comm_create(open, rank, ranks, bytes, millis, out)));
            return device.adopt(new Communicator(device, address, rank, ranks));
        }
    }

    /** The device of this rank. */
    public Device device() {
        return device;
    }

    /** This rank's number. */
    public int rank() {
        return rank;
    }

    /** How many ranks the group has. */
    public int ranks() {
        return ranks;
    }

    /** {@code recv[q]} of rank p becomes {@code send[p]} of rank q. As the other {@code allToAll} with one pair of tensors. */
    public void allToAll(Stream stream, Tensor send, Tensor recv) {
        allToAll(stream, send, recv, null, null);
    }

    /**
     * {@code recv[q]} of rank p becomes {@code send[p]} of rank q, bit for bit, once the streams of all ranks have come to it.
     * Returns before completion; can be captured and prepared, and is then to be run by all ranks. All ranks bring blocks of the
     * same size: on cpu and simt another one fails all of them, on cuda nobody checks.
     *
     * @param send [ranks, ...], of any type, compact
     * @param recv as send; overlaps nothing
     * @param alsoSend [ranks, ...]: a second pair in the same messages; null: none
     * @param alsoRecv as alsoSend
     * @throws ArgumentException if a shape or a type does not fit, or a tensor or the stream is of another device
     * @throws UnsupportedException if the group has ended: a rank aborted, failed, or did not come in time
     * @throws ClosedException if the communicator, the stream or a tensor was closed
     */
    public void allToAll(Stream stream, Tensor send, Tensor recv, @Nullable Tensor alsoSend, @Nullable Tensor alsoRecv) {
        var args = stream.begin("all_to_all", cul_all_to_all_args.sizeof());
        try {
            use(stream);
            cul_all_to_all_args.comm(args, handle.address);
            cul_all_to_all_args.send(args, stream.in(send, "send"));
            cul_all_to_all_args.recv(args, stream.out(recv, "recv"));
            cul_all_to_all_args.also_send(args, stream.optional(alsoSend, "also_send"));
            cul_all_to_all_args.also_recv(args, stream.optionalOut(alsoRecv, "also_recv"));
            while (stream.again(culebra_h.cul_all_to_all(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    private void use(Stream stream) {
        if (stream.device() != device) {
            throw stream.failure(Status.DEVICE, "the communicator is of " + device + " but the stream is of " + stream.device());
        }
        stream.use(handle, "comm");
        if (isClosed()) {
            throw closedException("all_to_all");
        }
    }

    /** Ends the group, from any thread: exchanges that wait, and those still queued, fail; later ones are refused. */
    public synchronized void abort() {
        if (closed) {
            throw closedException("comm_abort");
        }
        device.call("comm_abort", ignored -> culebra_h.cul_comm_abort(handle.address));
    }

    private ClosedException closedException(String op) {
        return new ClosedException(op, device.backend(), op + ": the " + this + " was closed; join another group");
    }

    /** If it was closed. */
    public synchronized boolean isClosed() {
        return closed;
    }

    /**
     * Leaves the group once the exchanges queued so far have run; does not wait for them. On cpu and simt other ranks' later exchanges
     * fail. On cuda all ranks leave together: NCCL may wait for the others; {@link #abort} first where they are gone.
     */
    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        device.forget(this);
        handle.drop();
        Release.start(device, handle.streams(), null, handle);
    }

    /** {@code rank 0 of 2 on cpu:0}. */
    @Override
    public String toString() {
        return "rank " + rank + " of " + ranks + " on " + device;
    }
}
