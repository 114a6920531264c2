package dev.culebra.internal;

import jdk.jfr.Category;
import jdk.jfr.DataAmount;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;

/** One copy between host and device or within a device, as queued. */
@Name("dev.culebra.Copy")
@Label("Copy")
@Category("Culebra")
@StackTrace(false)
public final class CopyEvent extends Event {
    /** How much. */
    @Label("Bytes")
    @DataAmount
    public long bytes;

    /** The backend. */
    @Label("Backend")
    public String backend = "";

    /** Records one copy, where a recording wants it. */
    public static void record(long bytes, Object backend) {
        var event = new CopyEvent();
        if (event.shouldCommit()) {
            event.bytes = bytes;
            event.backend = backend.toString();
            event.commit();
        }
    }
}
