package dev.culebra.conformance;

/** How a case becomes a call of an operator. */
@FunctionalInterface
public interface Binding {
    /** Makes the call; the runner waits for it. */
    void run(Call call);
}
