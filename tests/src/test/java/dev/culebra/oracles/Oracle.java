package dev.culebra.oracles;

/** One operator. */
@FunctionalInterface
public interface Oracle {
    void solve(Problem problem);
}
