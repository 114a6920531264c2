package dev.culebra.internal;

import jdk.jfr.Category;
import jdk.jfr.Event;
import jdk.jfr.EventType;
import jdk.jfr.Label;
import jdk.jfr.Name;
import org.jspecify.annotations.Nullable;

/** A thread that waits for a device: the time until what it waits for has run. */
@Name("dev.culebra.Wait")
@Label("Wait for a device")
@Category("Culebra")
public final class WaitEvent extends Event {
    private static final EventType TYPE = EventType.getEventType(WaitEvent.class);

    /** What the thread called. */
    @Label("Operation")
    public String op = "";

    /** The backend. */
    @Label("Backend")
    public String backend = "";

    /** One that has begun where some recording wants it; else null: a wait then makes no event object. */
    public static @Nullable WaitEvent begun() {
        if (!TYPE.isEnabled()) {
            return null;
        }
        var event = new WaitEvent();
        event.begin();
        return event;
    }

    /** Ends {@code event}, if there is one. */
    public static void end(@Nullable WaitEvent event, String op, Object backend) {
        if (event == null) {
            return;
        }
        event.end();
        if (event.shouldCommit()) {
            event.op = op;
            event.backend = backend.toString();
            event.commit();
        }
    }
}
