package dev.culebra.internal;

import jdk.jfr.Category;
import jdk.jfr.DataAmount;
import jdk.jfr.Event;
import jdk.jfr.EventType;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;

/** One copy between host and device or within a device, as queued. */
@Name("dev.culebra.Copy")
@Label("Copy")
@Category("Culebra")
@StackTrace(false)
public final class CopyEvent extends Event {
    private static final EventType TYPE = EventType.getEventType(CopyEvent.class);

    /** How much. */
    @Label("Bytes")
    @DataAmount
    public long bytes;

    /** The backend. */
    @Label("Backend")
    public String backend = "";

    /** Records one copy, where a recording wants it. */
    public static void record(long bytes, Object backend) {
        if (!TYPE.isEnabled()) {
            return;
        }
        var event = new CopyEvent();
        if (event.shouldCommit()) {
            event.bytes = bytes;
            event.backend = backend.toString();
            event.commit();
        }
    }
}
