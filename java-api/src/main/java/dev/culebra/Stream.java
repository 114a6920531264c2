package dev.culebra;

import dev.culebra.bindings.Native;
import dev.culebra.bindings.generated.cul_op_call;
import dev.culebra.bindings.generated.culebra_h;
import dev.culebra.internal.AllocationEvent;
import dev.culebra.internal.Backoff;
import dev.culebra.internal.CopyEvent;
import dev.culebra.internal.Diagnostics;
import dev.culebra.internal.GiveBacks;
import dev.culebra.internal.OpEvent;
import dev.culebra.internal.WaitEvent;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.jspecify.annotations.Nullable;

/**
 * A queue of work that runs in order. Calls that take a stream queue their work and return, unless they say otherwise.
 * A stream has no thread affinity, but two threads in it at once is a {@link ConcurrentUseException}. The stream owns
 * the operators' workspace, which grows as they need it.
 */
public final class Stream implements AutoCloseable {
    /** The owner while a release visits the stream: short, and nobody's mistake. */
    private static final Object MAINTENANCE = new Object();

    private static final VarHandle OWNER;

    static {
        try {
            OWNER = MethodHandles.lookup().findVarHandle(Stream.class, "owner", Object.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    private static final long ARGS_BYTES = 512;
    private static final long NESTED_BYTES = 128;
    private static final long WORKSPACE_STEP_BYTES = 1 << 20;

    private final Device device;
    private final MemorySegment handle;

    // One native block for the life of the stream: the args struct of the call in progress, a struct that it points to,
    // and the place of a result.
    private final MemorySegment args;
    private final MemorySegment nested;
    private final MemorySegment out;

    private final ConcurrentLinkedQueue<Release> releases = new ConcurrentLinkedQueue<>();
    private volatile @Nullable Object owner;
    private volatile boolean closed;

    // What follows belongs to the owner.
    private String op = "";
    private @Nullable OpEvent event;
    private final DeviceCounters.Sum counters = new DeviceCounters.Sum();
    private int flags = Diagnostics.CHECK ? culebra_h.CUL_OP_VALIDATE() : 0;
    private final Workspace workspace = new Workspace();
    private final StreamRecording recording = new StreamRecording(this);
    private boolean planning;
    private String plan = "";
    private long plannedBytes;

    Stream(Device device, MemorySegment handle) {
        this.device = device;
        this.handle = handle;
        var block = Arena.ofAuto().allocate(ARGS_BYTES + NESTED_BYTES + 16, 64);
        this.args = block.asSlice(0, ARGS_BYTES);
        this.nested = block.asSlice(ARGS_BYTES, NESTED_BYTES);
        this.out = block.asSlice(ARGS_BYTES + NESTED_BYTES, 16);
    }

    /** The device that it queues work on. */
    public Device device() {
        return device;
    }

    /**
     * Waits until everything queued so far has run. A virtual thread does not hold its carrier meanwhile.
     *
     * @throws DeviceFailedException if some of that work failed
     * @throws UnsupportedException during a capture
     */
    public void synchronize() {
        enter("stream_synchronize");
        try {
            await();
        } finally {
            exit();
        }
        device.pending().settle();
    }

    private void await() {
        var begin = System.nanoTime();
        var waiting = WaitEvent.begun();
        try {
            awaitQueue();
            check(culebra_h.cul_stream_synchronize(handle));
        } finally {
            WaitEvent.end(waiting, op, device.backend());
        }
        counters.waits++;
        counters.waitedNanos += System.nanoTime() - begin;
    }

    /** Has a virtual thread wait until the queue is empty. */
    private void awaitQueue() {
        recording.refuseCalls();
        // simt runs its queue on the calling thread: there is nothing to wait for.
        if (Thread.currentThread().isVirtual() && device.backend() != Backend.SIMT) {
            try (var backoff = new Backoff()) {
                while (!queryDone()) {
                    backoff.pause();
                }
            }
        }
    }

    /**
     * A future of everything queued so far: done when it has run, failed with a {@link DeviceFailedException} if some of
     * it failed. Queues a mark and returns; a virtual thread waits. (On simt, which runs its queue on the caller's
     * thread, this call runs it.) Cancelling the future does not stop the work; closing the device before it is done
     * fails it with a {@link ClosedException}.
     *
     * @throws UnsupportedException during a capture
     */
    public CompletableFuture<@Nullable Void> toFuture() {
        Event mark;
        try {
            mark = recorded();
        } catch (DeviceFailedException e) {
            return CompletableFuture.failedFuture(e);
        }
        var future = new CompletableFuture<@Nullable Void>();
        Runnable wait = () -> {
            try (mark) {
                mark.synchronize();
            } catch (Throwable e) { // whatever it is, nobody may wait for ever
                future.completeExceptionally(e);
                return;
            }
            future.complete(null);
        };
        if (device.backend() == Backend.SIMT) {
            wait.run();
        } else {
            Thread.ofVirtual().name("culebra-future").start(wait);
        }
        return future;
    }

    /** A new event behind everything queued so far. */
    private Event recorded() {
        var mark = device.openEvent();
        try {
            record(mark);
            return mark;
        } catch (RuntimeException e) {
            mark.close();
            throw e;
        }
    }

    /** If everything queued so far has run. On simt this call runs it. */
    public boolean isDone() {
        enter("stream_query");
        try {
            return queryDone();
        } finally {
            exit();
        }
    }

    private boolean queryDone() {
        check(culebra_h.cul_stream_query(handle, out));
        return out.get(ValueLayout.JAVA_INT, 0) != 0;
    }

    /** Has work queued from now on wait until {@code event}'s last record has been passed. */
    public void waitFor(Event event) {
        enter("stream_wait_event");
        try {
            recording.refuseCalls();
            event.waitOn(this);
        } finally {
            exit();
        }
    }

    /** Records {@code event}: it passes when everything queued so far has run. */
    public void record(Event event) {
        enter("event_record");
        try {
            recording.refuseCalls();
            event.recordOn(this);
        } finally {
            exit();
        }
    }

    /**
     * Whether operators on this stream reduce in an order that does not depend on M, the batch or a split (false at
     * first): a row's result is then bit for bit the same in any batch.
     */
    public Stream batchInvariant(boolean value) {
        enter("batch_invariant");
        try {
            var flag = culebra_h.CUL_OP_BATCH_INVARIANT();
            flags = value ? flags | flag : flags & ~flag;
            return this;
        } finally {
            exit();
        }
    }

    /**
     * Has the operators in {@code calls} check their arguments and plan, but run nothing: how they would run, and the
     * workspace they need, for {@link #reserveWorkspace}. Everything else in {@code calls} happens.
     *
     * @throws UnsupportedException within {@code calls} of another plan
     */
    public Plan plan(Runnable calls) {
        beginPlan();
        try {
            calls.run();
        } finally {
            endPlan();
        }
        return new Plan(plan, plannedBytes);
    }

    private void beginPlan() {
        enter("plan");
        try {
            if (planning) {
                throw failure(Status.UNSUPPORTED, "a plan cannot be part of another one");
            }
            plan = "";
            plannedBytes = 0;
            planning = true;
        } finally {
            exit();
        }
    }

    private void endPlan() {
        if (!closed) {
            enterAtLast("plan");
            planning = false;
            exit();
        }
    }

    /**
     * Makes the workspace at least this large, so that operators need not grow it: during a capture they cannot.
     *
     * @throws MemoryException if there is no memory for it
     */
    public void reserveWorkspace(long bytes) {
        enter("reserve_workspace");
        try {
            if (bytes < 0) {
                throw failure(Status.RANGE, "a workspace of " + bytes + " bytes");
            }
            if (bytes > workspace.bytes) {
                growWorkspace(bytes);
            }
        } finally {
            exit();
        }
    }

    /** The workspace's size: what the operators so far have needed, rounded up. */
    public long workspaceBytes() {
        return workspace.bytes;
    }

    /**
     * Records what {@code work} queues on this stream, without running it. The graph takes the stream's workspace with
     * it, so run the work once before, or {@link #reserveWorkspace}: nothing can be allocated meanwhile. The graph
     * repeats the calls with the tensors and attributes that they were given; closing one of those tensors' memory ends
     * its use.
     *
     * @throws UnsupportedException if the stream is being captured, or the work allocates, waits or copies from the
     *     heap
     */
    public Graph capture(Runnable work) {
        return recording.capture(work);
    }

    /**
     * Records the operators, fills, queued copies and kernel launches that {@code work} calls on this stream, without running
     * them, for {@link Prepared#run}. They are checked now, and again with each run. A run repeats them with the tensors and
     * attributes that they were given, views included: all of these must be open then.
     *
     * @throws UnsupportedException if the stream is being captured, or the work waits, uses events, copies from the heap or
     *     launches a kernel that needs scratch memory
     * @throws MemoryException if there is no memory for the operators' workspace
     */
    public Prepared prepare(Runnable work) {
        return recording.prepare(work);
    }

    /** If it was closed. */
    public boolean isClosed() {
        return closed;
    }

    /**
     * Waits for the queued work and closes the stream.
     *
     * @throws DeviceFailedException if some of that work failed; the stream is closed all the same
     * @throws ConcurrentUseException if another thread is in a call on the stream, which then stays open
     */
    @Override
    public void close() {
        if (closed) {
            return;
        }
        enter("stream_destroy");
        try {
            recording.abandon();
            visitReleases(true);
            freeWorkspace();
            closed = true;
            device.forget(this);
            check(culebra_h.cul_stream_destroy(handle));
        } finally {
            exit();
        }
        device.pending().settle();
    }

    /** {@code stream of cpu:0}. */
    @Override
    public String toString() {
        return "stream of " + device;
    }

    // ------------------------------------------------------------------------------------------- one thread at a time

    /** Makes the calling thread the owner; {@link #exit} must follow. */
    void enter(String name) {
        if (!OWNER.compareAndSet(this, null, Thread.currentThread())) {
            enterWhenFree(name);
        }
        op = name;
        if (closed) {
            exit();
            throw new ClosedException(name, device.backend(), name + ": the " + this + " was closed; open another one");
        }
    }

    private void enterWhenFree(String name) {
        var me = Thread.currentThread();
        try (var backoff = new Backoff()) {
            while (!OWNER.compareAndSet(this, null, me)) {
                if (owner instanceof Thread other) {
                    throw new ConcurrentUseException(name, device.backend(), name + ": thread \"" + other.getName()
                            + "\" is in a call on this stream; give thread \"" + me.getName() + "\" a stream of its own");
                }
                backoff.pause();
            }
        }
    }

    /** As {@link #enter}, for what must not fail: waits for the call that another thread is in. */
    void enterAtLast(String name) {
        try (var backoff = new Backoff()) {
            while (true) {
                try {
                    enter(name);
                    return;
                } catch (ConcurrentUseException e) {
                    backoff.pause();
                }
            }
        }
    }

    void exit() {
        owner = null;
        if (visitPending()) {
            GiveBacks.run();
        }
    }

    /** Has {@code release} visit this stream now, or when the call in progress or the capture is over. */
    void whenIdle(Release release) {
        releases.add(release);
        visitPending();
    }

    /** True if there was a release to visit. */
    private boolean visitPending() {
        var visited = false;
        while (!recording.isOpen() && !releases.isEmpty() && OWNER.compareAndSet(this, null, MAINTENANCE)) {
            try {
                if (!recording.isOpen()) {
                    visitReleases(!closed);
                }
            } finally {
                owner = null;
            }
            visited = true;
        }
        return visited;
    }

    private void visitReleases(boolean open) {
        for (Release release; (release = releases.poll()) != null; ) {
            release.visit(this, open);
        }
    }

    /** Waits for the queued work, unless a call or a capture is in progress. */
    void drain() {
        if (OWNER.compareAndSet(this, null, MAINTENANCE)) {
            try {
                if (!closed && !recording.isOpen()) {
                    culebra_h.cul_stream_synchronize(handle);
                }
            } finally {
                owner = null;
            }
            visitPending();
        }
    }

    /** Frees device memory in stream order, during a visit; false if that is impossible. */
    boolean free(MemorySegment address) {
        return culebra_h.cul_memory_free_async(handle, address) == culebra_h.CUL_OK();
    }

    /** A new event recorded behind all queued work, during a visit; null if that work has been waited for instead. */
    @Nullable MemorySegment mark() {
        try {
            var marker = device.with(open -> Natives.pointer(
                    device.backend(), "event_create", result -> culebra_h.cul_event_create(open, result)));
            if (culebra_h.cul_event_record(marker, handle) == culebra_h.CUL_OK()) {
                return marker;
            }
            culebra_h.cul_event_destroy(marker);
        } catch (CulebraException e) {
            Diagnostics.LOG.log(System.Logger.Level.WARNING, "no event on {0}: {1}", this, e.getMessage());
        }
        // If this fails too, the device has: nothing runs there any more.
        culebra_h.cul_stream_synchronize(handle);
        return null;
    }

    // ------------------------------------------------------------------------------------------------ operator calls

    /** Enters the stream for one operator call, and hands out its args struct: the head filled in, the rest 0. */
    MemorySegment begin(String name, long argsBytes) {
        enter(name);
        for (var offset = 0L; offset < argsBytes; offset += Long.BYTES) {
            args.set(ValueLayout.JAVA_LONG, offset, 0);
        }
        cul_op_call.struct_size(args, (int) argsBytes);
        cul_op_call.flags(args, planning || recording.calls() != null ? flags | culebra_h.CUL_OP_PLAN_ONLY() : flags);
        cul_op_call.workspace(args, workspace.memory);
        cul_op_call.workspace_bytes(args, workspace.bytes);
        beginEvent();
        return args;
    }

    /** Enters the stream for calls whose arguments are elsewhere; {@link #end} must follow. */
    void enterCalls(String name) {
        enter(name);
        if (recording.calls() != null) {
            exit();
            throw new UnsupportedException(Status.UNSUPPORTED, name, device.backend(),
                    name + ": cannot be part of prepared calls");
        }
        beginEvent();
    }

    private void beginEvent() {
        if (OpEvent.wanted()) {
            event = new OpEvent();
            event.begin();
        }
    }

    /** Where a native function writes a result of the call in progress. */
    MemorySegment result() {
        return out;
    }

    /** Where a struct is written that the args struct points to. */
    MemorySegment nested() {
        return nested;
    }

    MemorySegment handle() {
        return handle;
    }

    /** The descriptor of an input. */
    MemorySegment in(@Nullable Tensor tensor, String name) {
        if (tensor == null) {
            throw failure(Status.NULL_POINTER, name + " is null");
        }
        return use(tensor, name);
    }

    /** The descriptor of an input that may be absent. */
    MemorySegment optional(@Nullable Tensor tensor, String name) {
        return tensor == null ? MemorySegment.NULL : use(tensor, name);
    }

    /** The descriptor of an output. */
    MemorySegment out(@Nullable Tensor tensor, String name) {
        var descriptor = in(tensor, name);
        if (tensor.lease().storage.isReadOnly()) {
            throw failure(Status.UNSUPPORTED, name + ", " + tensor
                    + ", lies in read-only memory and cannot be written");
        }
        return descriptor;
    }

    /** The descriptor of an output that may be absent. */
    MemorySegment optionalOut(@Nullable Tensor tensor, String name) {
        return tensor == null ? MemorySegment.NULL : out(tensor, name);
    }

    private MemorySegment use(Tensor tensor, String name) {
        var lease = tensor.lease();
        if (lease.storage.device != device) {
            throw failure(Status.DEVICE, name + ", " + tensor + ", is on " + lease.storage.device
                    + " but the stream is of "
                    + device + "; copy it there first");
        }
        useMemory(lease, name);
        return lease.descriptor;
    }

    /** Marks memory, of any device, as used by what is queued next. */
    void useMemory(Lease lease, String name) {
        lease.storage.mark(this);
        if (lease.isClosed()) {
            throw lease.closedException(op, name);
        }
        if (!lease.storage.isAlive()) {
            throw new ClosedException(op, device.backend(), op + ": the arena of " + name + ", " + lease
                    + ", was closed under it");
        }
        recording.use(lease, name);
    }

    /** After an operator answered: true to call it again with a larger workspace, false when it is done. */
    boolean again(int status) {
        if (status == culebra_h.CUL_OK()) {
            if (planning) {
                plan = Native.lastPlan();
                plannedBytes = Math.max(plannedBytes, Native.lastWorkspaceBytes());
            } else if (recording.calls() != null) {
                recording.calls().operator(op, args, nested, Native.lastWorkspaceBytes());
            } else {
                counters.operators++;
            }
            return false;
        }
        if (status == culebra_h.CUL_WORKSPACE()) {
            var needed = Native.lastWorkspaceBytes();
            if (needed > workspace.bytes) {
                growWorkspace(needed);
                cul_op_call.workspace(args, workspace.memory);
                cul_op_call.workspace_bytes(args, workspace.bytes);
                return true;
            }
        }
        throw Natives.failure(status, op, device.backend());
    }

    /** Ends an operator call, failed or not. */
    void end() {
        var finished = event;
        if (finished != null) {
            event = null;
            finished.op = op;
            finished.backend = device.backend().toString();
            finished.commit();
        }
        exit();
    }

    private void growWorkspace(long needed) {
        if (recording.isOpen()) {
            throw failure(Status.WORKSPACE, "needs a workspace of " + needed + " bytes but the capture has "
                    + workspace.bytes
                    + "; run the work once before its capture, or call reserveWorkspace");
        }
        freeWorkspace();
        var bytes = Math.ceilDiv(needed, WORKSPACE_STEP_BYTES) * WORKSPACE_STEP_BYTES;
        workspace.set(allocateQueued(bytes), bytes);
    }

    /** Device memory in stream order; waits for queued frees where there is none left otherwise. */
    MemorySegment allocateQueued(long bytes) {
        var status = culebra_h.cul_memory_alloc_async(handle, bytes, out);
        if (status == culebra_h.CUL_OUT_OF_MEMORY()) {
            check(culebra_h.cul_stream_synchronize(handle));
            device.quiesce();
            status = culebra_h.cul_memory_alloc_async(handle, bytes, out);
        }
        check(status);
        AllocationEvent.record(bytes, device.backend());
        return out.get(ValueLayout.ADDRESS, 0);
    }

    private void freeWorkspace() {
        if (workspace.bytes > 0) {
            free(workspace.memory);
            workspace.set(MemorySegment.NULL, 0);
        }
    }

    // -------------------------------------------------------------------------------------------------------- copies

    /** Queues a copy. The stream is entered, and both sides are marked as used. */
    void copy(MemorySegment target, MemorySegment source, long bytes) {
        if (recording.calls() != null) {
            recording.calls().copy(op, target, source, bytes);
            return;
        }
        CopyEvent.record(bytes, device.backend());
        check(culebra_h.cul_copy(handle, target, source, bytes));
        counters.copies++;
        counters.copiedBytes += bytes;
    }

    /**
     * As {@link #copy}, and waits for it: for memory that need not outlive the call. One native call does both: while it is in
     * progress, nobody closes the arena of a segment that was passed to it, nor does the collector.
     */
    void copyAndWait(MemorySegment target, MemorySegment source, long bytes) {
        if (recording.isOpen()) {
            throw failure(Status.UNSUPPORTED, "a copy that waits cannot be captured or prepared; copy through a HostBuffer");
        }
        CopyEvent.record(bytes, device.backend());
        var begin = System.nanoTime();
        var waiting = WaitEvent.begun();
        try {
            awaitQueue();
            copyNow(target, source, bytes);
        } finally {
            WaitEvent.end(waiting, op, device.backend());
        }
        counters.copies++;
        counters.copiedBytes += bytes;
        counters.waits++;
        counters.waitedNanos += System.nanoTime() - begin;
    }

    private void copyNow(MemorySegment target, MemorySegment source, long bytes) {
        int status;
        try {
            status = culebra_h.cul_copy_and_wait(handle, target, source, bytes);
        } catch (IllegalStateException e) {
            throw failure(Status.CLOSED, "the segment's arena was closed");
        }
        check(status);
    }

    void fill(MemorySegment target, int value, long bytes) {
        if (recording.calls() != null) {
            recording.calls().fill(op, target, value, bytes);
            return;
        }
        check(culebra_h.cul_fill(handle, target, value, bytes));
    }

    /** Marks something other than memory as used by what is queued next. */
    void use(Uses uses, String name) {
        uses.mark(this);
        recording.use(uses, name);
    }

    /** Queues the launch of a kernel; what it uses is marked. */
    void launch(MemorySegment kernel, MemorySegment launchArgs, MemorySegment parameters) {
        if (recording.calls() != null) {
            recording.calls().launch(op, kernel, launchArgs, parameters);
            return;
        }
        check(culebra_h.cul_kernel_launch(handle, kernel, launchArgs));
    }

    /** The operator or function that is being called. */
    String op() {
        return op;
    }

    /** The workspace, of at least that size; for work of the call in progress. */
    MemorySegment workspace(long bytes) {
        recording.refuseCalls();
        if (bytes > workspace.bytes) {
            growWorkspace(bytes);
        }
        return workspace.memory;
    }

    Workspace workspace() {
        return workspace;
    }

    /** What it records, if anything. */
    StreamRecording recording() {
        return recording;
    }

    /** What it has done; a call in progress may count or not. */
    DeviceCounters.Sum counters() {
        return counters;
    }

    boolean isCapturing() {
        return recording.isOpen();
    }

    void check(int status) {
        Natives.check(status, op, device.backend());
    }

    CulebraException failure(Status status, String text) {
        return CulebraException.of(status, op, device.backend(), op + ": " + text);
    }
}
