package dev.culebra;

import dev.culebra.bindings.NativeLibrary;
import dev.culebra.bindings.generated.cul_device_id;
import dev.culebra.bindings.generated.cul_device_info;
import dev.culebra.bindings.generated.cul_device_options;
import dev.culebra.bindings.generated.culebra_h;
import dev.culebra.internal.AllocationEvent;
import dev.culebra.internal.Backoff;
import dev.culebra.internal.DescriptorPool;
import dev.culebra.internal.Diagnostics;
import dev.culebra.internal.GiveBacks;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Function;
import java.util.function.ToIntFunction;

/**
 * A processor and its memory. Shared freely between threads. Closing it closes what was made from it: streams, events,
 * graphs, modules, communicators, pinned buffers, scopes and their tensors. A device that nobody closes stays, with all
 * of these but the scopes that became unreachable.
 */
public final class Device implements AutoCloseable {
    /** Reachable until they are closed: their threads may still use what was made of them and is reachable from there alone. */
    private static final Set<Device> OPEN = ConcurrentHashMap.newKeySet();

    private final MemorySegment handle;
    private final DeviceInfo info;
    private final DescriptorPool descriptors = new DescriptorPool();
    private final Pending pending = new Pending(this);
    private final Memory memory = new Memory(this);
    private final LoadedModule.Cache modules = new LoadedModule.Cache();

    /** Streams, events, graphs, modules, buffers and outermost scopes that are open, in the order of their making. */
    private final Set<AutoCloseable> children = new LinkedHashSet<>();

    /** Read: calls with the handle. Write: its end. */
    private final ReentrantReadWriteLock lifetime = new ReentrantReadWriteLock();

    /** Of streams that were closed; guarded by children. */
    private final DeviceCounters.Sum closedStreams = new DeviceCounters.Sum();

    private final Object lending = new Object();

    /** Pieces of memory lent to other libraries, and if they outlived {@link #close}; guarded by lending. */
    private int lent;

    private boolean outlived;

    private boolean closing;
    private volatile boolean closed;

    private Device(MemorySegment handle, Backend backend, int index) {
        this.handle = handle;
        this.info = query(backend, index);
    }

    /**
     * What each backend offers on this machine, and why one offers nothing.
     *
     * @throws LibraryException if the native library could not be loaded
     */
    public static List<Availability> available() {
        Natives.load();
        var list = new ArrayList<Availability>();
        try (var arena = Arena.ofConfined()) {
            var count = arena.allocate(ValueLayout.JAVA_INT);
            var reason = arena.allocate(ValueLayout.ADDRESS);
            for (var backend : Backend.values()) {
                Natives.check(
                        culebra_h.cul_backend_devices(backend.ordinal(), count, reason), "backend_devices", backend);
                var text = reason.get(culebra_h.C_POINTER, 0).getString(0);
                list.add(new Availability(backend, count.get(ValueLayout.JAVA_INT, 0), text));
            }
        }
        return list;
    }

    /** The native library's version and where it was loaded from, in words for people. */
    public static String library() {
        Natives.load();
        return culebra_h.cul_version().getString(0) + " from " + NativeLibrary.origin();
    }

    /**
     * Opens a device by name: {@code "cpu"}, {@code "cuda"}, {@code "simt"}, or one of several: {@code "cuda:1"}.
     *
     * @throws ArgumentException if there is no such backend, or it has no device of that number
     * @throws UnsupportedException if the backend has no device here; the message says why
     * @throws LibraryException if the native library could not be loaded
     */
    public static Device open(String name) {
        return open(name, DeviceOptions.DEFAULT);
    }

    /** As {@link #open(String)}, with options. */
    public static Device open(String name, DeviceOptions options) {
        var colon = name.indexOf(':');
        if (colon < 0) {
            return open(Backend.named(name), 0, options);
        }
        try {
            return open(Backend.named(name.substring(0, colon)), Integer.parseInt(name.substring(colon + 1)), options);
        } catch (NumberFormatException e) {
            throw new ArgumentException(Status.RANGE, "device_open", null,
                    "\"" + name + "\" names no device; write cpu, cuda, simt or, one of several, cuda:1");
        }
    }

    /** As {@link #open(String)}, by backend and number. */
    public static Device open(Backend backend, int index, DeviceOptions options) {
        Natives.load();
        Memory.checkLimit(options.memoryLimitBytes(), backend);
        try (var arena = Arena.ofConfined()) {
            var struct = arena.allocate(cul_device_options.layout());
            cul_device_options.struct_size(struct, (int) struct.byteSize());
            cul_device_options.threads(struct, options.threads());
            cul_device_options.memory_limit_bytes(struct, options.memoryLimitBytes());
            cul_device_options.poison(struct, options.poison() ? 1 : 0);
            cul_device_options.schedule(struct, options.schedule().ordinal());
            cul_device_options.seed(struct, options.seed());
            var handle = Natives.pointer(
                    backend, "device_open", out -> culebra_h.cul_device_open(backend.ordinal(), index, struct, out));
            var device = new Device(handle, backend, index);
            OPEN.add(device);
            return device;
        }
    }

    private DeviceInfo query(Backend backend, int index) {
        try (var arena = Arena.ofConfined()) {
            var struct = arena.allocate(cul_device_info.layout());
            cul_device_info.struct_size(struct, (int) struct.byteSize());
            Natives.check(culebra_h.cul_device_get_info(handle, struct), "device_get_info", backend);
            return new DeviceInfo(
                    backend,
                    index,
                    cul_device_info.name(struct).getString(0),
                    cul_device_info.detail(struct).getString(0),
                    cul_device_info.compute_major(struct),
                    cul_device_info.compute_minor(struct),
                    cul_device_info.multiprocessors(struct),
                    cul_device_info.shared_bytes_per_block(struct),
                    cul_device_info.l2_bytes(struct),
                    cul_device_info.memory_bytes(struct));
        }
    }

    /** What the device is. */
    public DeviceInfo info() {
        return info;
    }

    /** Its backend. */
    public Backend backend() {
        return info.backend();
    }

    /** Its memory: statistics, limit, trim. */
    public Memory memory() {
        return memory;
    }

    /** What its streams have done since it was opened, those that were closed included. A call in progress may count or not. */
    public DeviceCounters counters() {
        var sum = new DeviceCounters.Sum();
        synchronized (children) {
            sum.add(closedStreams);
            for (var child : children) {
                if (child instanceof Stream stream) {
                    sum.add(stream.counters());
                }
            }
        }
        return sum.get();
    }

    /**
     * A new queue of work.
     *
     * @throws ClosedException if the device was closed
     */
    public Stream openStream() {
        return adopt(new Stream(this, create("stream_create", culebra_h::cul_stream_create)));
    }

    /** A new event, which has passed until it is recorded. */
    public Event openEvent() {
        return adopt(new Event(this, create("event_create", culebra_h::cul_event_create)));
    }

    /** A new owner of tensors. */
    public Scope openScope() {
        return new Scope(adopt(new Leases(this, null)), null);
    }

    /**
     * Pinned host memory: copies to and from it overlap with the device's work.
     *
     * @throws MemoryException if the system has no more to give
     */
    public HostBuffer pin(long bytes) {
        if (bytes < 0) {
            throw new ArgumentException(Status.RANGE, "host_alloc", backend(), "a host buffer of " + bytes + " bytes");
        }
        return adopt(new HostBuffer(Storage.pin(this, bytes)));
    }

    /** If it was closed. */
    public boolean isClosed() {
        return closed;
    }

    /**
     * Closes what was made from the device, waits for its work and frees what it holds.
     *
     * @throws DeviceFailedException if work that was still queued failed; the device is closed all the same
     */
    @Override
    public void close() {
        List<AutoCloseable> open;
        synchronized (children) {
            if (closing) {
                return;
            }
            closing = true;
            open = new ArrayList<>(children);
            children.clear();
        }
        if (Diagnostics.PARANOID) {
            open.forEach(child -> Diagnostics.LOG.log(System.Logger.Level.WARNING,
                    "left open until its device was closed: "
                            + (child instanceof Leases leases ? leases.describe() : child)));
        }
        CulebraException failure = null;
        for (var child : open.reversed()) {
            try {
                closeWhenFree(child);
            } catch (Exception e) {
                var failed = e instanceof CulebraException known ? known
                        : new CulebraException(Status.INTERNAL, null, backend(), "closing " + child + " failed: " + e);
                if (failure == null) {
                    failure = failed;
                } else {
                    failure.addSuppressed(failed);
                }
            }
        }
        pending.collectAll(); // none come any more that wait for a stream of this device
        lifetime.writeLock().lock();
        try {
            closed = true;
            synchronized (lending) {
                outlived = lent > 0;
            }
            if (!outlived) {
                Natives.check(culebra_h.cul_device_close(handle), "device_close", backend());
            }
        } finally {
            lifetime.writeLock().unlock();
            OPEN.remove(this);
            GiveBacks.run();
        }
        if (failure != null) {
            throw failure;
        }
    }

    /** Waits for the call of another thread that a stream is in. */
    private static void closeWhenFree(AutoCloseable child) throws Exception {
        try (var backoff = new Backoff()) {
            for (; ; backoff.pause()) {
                try {
                    child.close();
                    return;
                } catch (ConcurrentUseException e) {
                    // The next turn tries again.
                }
            }
        }
    }

    /** {@code cpu:0}. */
    @Override
    public String toString() {
        return backend() + ":" + info.index();
    }

    /** Calls with the handle while the device cannot be closed. */
    <T> T with(Function<MemorySegment, T> function) {
        lifetime.readLock().lock();
        try {
            if (closed) {
                throw closedException();
            }
            return function.apply(handle);
        } finally {
            lifetime.readLock().unlock();
        }
    }

    void call(String name, ToIntFunction<MemorySegment> function) {
        with(open -> {
            Natives.check(function.applyAsInt(open), name, backend());
            return null;
        });
    }

    /** Gives something back, unless the device was closed and gave it back itself. A failure goes to the log. */
    void free(String name, String what, ToIntFunction<MemorySegment> function) {
        lifetime.readLock().lock();
        try {
            if (closed) {
                return;
            }
            var status = function.applyAsInt(handle);
            if (status != culebra_h.CUL_OK()) {
                Diagnostics.LOG.log(System.Logger.Level.WARNING, "{0} of {1} on {2}: {3}",
                        name, what, this, Natives.failure(status, name, backend()).getMessage());
            }
        } finally {
            lifetime.readLock().unlock();
        }
    }

    /** Runs {@code action} while the device cannot be closed; does nothing if it was. */
    void ifOpen(Runnable action) {
        lifetime.readLock().lock();
        try {
            if (!closed) {
                action.run();
            }
        } finally {
            lifetime.readLock().unlock();
        }
    }

    /** Device memory; waits for queued frees where there is none left otherwise. */
    MemorySegment allocate(long bytes) {
        pending.settle();
        try {
            return allocateNow(bytes);
        } catch (MemoryException e) {
            quiesce();
            return allocateNow(bytes);
        }
    }

    private MemorySegment allocateNow(long bytes) {
        var memory = create("memory_alloc", (open, out) -> culebra_h.cul_memory_alloc(open, bytes, out));
        AllocationEvent.record(bytes, backend());
        return memory;
    }

    MemorySegment allocatePinned(long bytes) {
        pending.settle();
        var memory = create("host_alloc", (open, out) -> culebra_h.cul_host_alloc(open, bytes, out));
        AllocationEvent.record(bytes, backend());
        return memory;
    }

    /** Waits for the work of every stream that no call is in progress on, so that queued frees take effect. */
    void quiesce() {
        List<AutoCloseable> open;
        synchronized (children) {
            open = new ArrayList<>(children);
        }
        for (var child : open) {
            if (child instanceof Stream stream) {
                stream.drain();
            }
        }
        pending.collect();
    }

    private interface Creation {
        int call(MemorySegment device, MemorySegment out);
    }

    private MemorySegment create(String name, Creation creation) {
        return with(open -> Natives.pointer(backend(), name, out -> creation.call(open, out)));
    }

    <T extends AutoCloseable> T adopt(T child) {
        synchronized (children) {
            if (!closing) {
                children.add(child);
                return child;
            }
        }
        try {
            child.close();
        } catch (Exception e) {
            throw new CulebraException(Status.INTERNAL, null, backend(), "closing " + child + " failed: " + e);
        }
        throw closedException();
    }

    void adoptGraph(Graph graph) {
        adopt(graph);
    }

    void forget(AutoCloseable child) {
        synchronized (children) {
            if (children.remove(child) && child instanceof Stream stream) {
                closedStreams.add(stream.counters());
            }
        }
    }

    /**
     * Keeps the native device, and with it its memory, beyond {@link #close} until {@link #returned}.
     *
     * @throws ClosedException if the device was closed
     */
    void lend() {
        with(open -> {
            keep();
            return null;
        });
    }

    /** As {@link #lend}, for one who holds some of its memory, so that it cannot be gone. */
    void keep() {
        synchronized (lending) {
            lent++;
        }
    }

    /** Ends one {@link #lend} or {@link #keep}. Takes no lock of the device: who gives something back may hold one. */
    void returned() {
        boolean last;
        synchronized (lending) {
            last = --lent == 0 && outlived;
        }
        if (last) {
            var status = culebra_h.cul_device_close(handle);
            if (status != culebra_h.CUL_OK()) {
                Diagnostics.LOG.log(System.Logger.Level.WARNING, "device_close of {0}: {1}", this,
                        Natives.failure(status, "device_close", backend()).getMessage());
            }
        }
    }

    LoadedModule.Cache modules() {
        return modules;
    }

    DescriptorPool descriptors() {
        return descriptors;
    }

    Pending pending() {
        return pending;
    }

    void writeId(MemorySegment id) {
        cul_device_id.type(id, backend().deviceType);
        cul_device_id.index(id, info.index());
    }

    private ClosedException closedException() {
        return new ClosedException(null, backend(), "the device " + this + " was closed; open it again");
    }
}
