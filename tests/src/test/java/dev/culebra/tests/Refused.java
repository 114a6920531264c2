package dev.culebra.tests;

import dev.culebra.ArgumentException;
import dev.culebra.ClosedException;
import dev.culebra.CulebraException;
import dev.culebra.Status;
import dev.culebra.UnsupportedException;

/** How a call is refused. */
record Refused(Class<? extends CulebraException> exception, Status status) {
    static final Refused NULL = new Refused(ArgumentException.class, Status.NULL_POINTER);
    static final Refused SHAPE = new Refused(ArgumentException.class, Status.SHAPE);
    static final Refused DTYPE = new Refused(ArgumentException.class, Status.DTYPE);
    static final Refused RANGE = new Refused(ArgumentException.class, Status.RANGE);
    static final Refused STRIDE = new Refused(ArgumentException.class, Status.STRIDE);
    static final Refused ALIGNMENT = new Refused(ArgumentException.class, Status.ALIGNMENT);
    static final Refused DEVICE = new Refused(ArgumentException.class, Status.DEVICE);
    static final Refused CLOSED = new Refused(ClosedException.class, Status.CLOSED);
    static final Refused UNSUPPORTED = new Refused(UnsupportedException.class, Status.UNSUPPORTED);
}
