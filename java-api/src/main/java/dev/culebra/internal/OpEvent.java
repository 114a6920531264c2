package dev.culebra.internal;

import jdk.jfr.Category;
import jdk.jfr.Event;
import jdk.jfr.EventType;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;

/** One call of an operator: the time that checking and queueing took, not that of the work. */
@Name("dev.culebra.Op")
@Label("Operator call")
@Category("Culebra")
@StackTrace(false)
public final class OpEvent extends Event {
    private static final EventType TYPE = EventType.getEventType(OpEvent.class);

    /** The operator. */
    @Label("Operator")
    public String op = "";

    /** The backend. */
    @Label("Backend")
    public String backend = "";

    /** If some recording wants these events; where none does, a call makes no event object. */
    public static boolean wanted() {
        return TYPE.isEnabled();
    }
}
