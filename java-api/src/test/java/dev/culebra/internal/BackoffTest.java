package dev.culebra.internal;

import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class BackoffTest {
    /** One that does not park holds its carrier and spins, until what it waits for has come. */
    @Test
    void anInterruptDoesNotMakeItSpin() throws InterruptedException {
        var thread = Thread.ofVirtual().unstarted(() -> {
            Thread.currentThread().interrupt();
            var begin = System.nanoTime();
            try (var backoff = new Backoff()) {
                for (var turn = 0; turn < 64 + 20; turn++) {
                    backoff.pause();
                }
            }
            var waited_ns = System.nanoTime() - begin;
            assertTrue(waited_ns > 5_000_000, waited_ns + " ns in 20 turns");
            assertTrue(Thread.currentThread().isInterrupted(), "it is for the caller to see");
        });
        var failure = new Throwable[1];
        thread.setUncaughtExceptionHandler((ignored, thrown) -> failure[0] = thrown);
        thread.start();
        thread.join();
        if (failure[0] != null) {
            throw new AssertionError(failure[0]);
        }
    }
}
