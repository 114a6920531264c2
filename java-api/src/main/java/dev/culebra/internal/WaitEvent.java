package dev.culebra.internal;

import jdk.jfr.Category;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;

/** A thread that waits for a device: the time until what it waits for has run. */
@Name("dev.culebra.Wait")
@Label("Wait for a device")
@Category("Culebra")
public final class WaitEvent extends Event {
    /** What the thread called. */
    @Label("Operation")
    public String op = "";

    /** The backend. */
    @Label("Backend")
    public String backend = "";

    /** Runs {@code wait}, and records how long it took where a recording wants it. */
    public static void record(String op, Object backend, Runnable wait) {
        var event = new WaitEvent();
        event.begin();
        try {
            wait.run();
        } finally {
            event.end();
            if (event.shouldCommit()) {
                event.op = op;
                event.backend = backend.toString();
                event.commit();
            }
        }
    }
}
