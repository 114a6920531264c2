package dev.culebra.internal;

import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;

/**
 * Memory of others that is free to go, to be given back by code of others. That may use the device, the stream or the tensors
 * that it came from, so it runs where the library holds none of its locks and is in no call on a stream.
 */
public final class GiveBacks {
    private static final Queue<Runnable> QUEUE = new ConcurrentLinkedQueue<>();

    private GiveBacks() {}

    /** Has {@code owner} run at the next {@link #run}. */
    public static void add(Runnable owner) {
        QUEUE.add(owner);
    }

    /** Runs what was added, on this thread. What it throws goes to the log. */
    public static void run() {
        for (Runnable owner; (owner = QUEUE.poll()) != null; ) {
            try {
                owner.run();
            } catch (RuntimeException | Error e) {
                Diagnostics.LOG.log(System.Logger.Level.WARNING, "giving foreign memory back", e);
            }
        }
    }
}
