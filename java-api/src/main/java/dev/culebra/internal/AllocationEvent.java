package dev.culebra.internal;

import jdk.jfr.Category;
import jdk.jfr.DataAmount;
import jdk.jfr.Event;
import jdk.jfr.EventType;
import jdk.jfr.Label;
import jdk.jfr.Name;

/** One allocation of device or pinned host memory. */
@Name("dev.culebra.Allocation")
@Label("Allocation")
@Category("Culebra")
public final class AllocationEvent extends Event {
    private static final EventType TYPE = EventType.getEventType(AllocationEvent.class);

    /** How much. */
    @Label("Bytes")
    @DataAmount
    public long bytes;

    /** The backend. */
    @Label("Backend")
    public String backend = "";

    /** Records one allocation, where a recording wants it. */
    public static void record(long bytes, Object backend) {
        if (!TYPE.isEnabled()) {
            return;
        }
        var event = new AllocationEvent();
        if (event.shouldCommit()) {
            event.bytes = bytes;
            event.backend = backend.toString();
            event.commit();
        }
    }
}
