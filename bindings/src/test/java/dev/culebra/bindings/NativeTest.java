package dev.culebra.bindings;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

class NativeTest {
    @BeforeAll
    static void load() {
        NativeLibrary.load();
    }

    @Test
    void okIsNoException() {
        assertDoesNotThrow(() -> Native.check(culebra_h.CUL_OK()));
    }

    @Test
    void aStatusBecomesAnExceptionWithTheLibrarysText() {
        var thrown = assertThrows(StatusException.class, () -> Native.check(openUnknownBackend()));
        assertEquals(culebra_h.CUL_RANGE(), thrown.status());
        assertEquals(culebra_h.cul_last_error().getString(0), thrown.getMessage());
        assertFalse(thrown.getMessage().isEmpty());
    }

    @Test
    void theTextOfAFailureBelongsToItsThread() throws InterruptedException {
        openUnknownBackend();
        var here = Native.lastError();
        var elsewhere = new String[1];
        var thread = Thread.ofPlatform().start(() -> elsewhere[0] = Native.lastError());
        thread.join();
        assertFalse(here.isEmpty());
        assertEquals("", elsewhere[0]);
    }

    @Test
    void theCriticalGettersAnswerWhatThePlainOnesDo() {
        openUnknownBackend();
        assertEquals(culebra_h.cul_last_error().getString(0), Native.lastError());
        assertEquals(culebra_h.cul_last_plan().getString(0), Native.lastPlan());
        assertEquals(culebra_h.cul_last_workspace_bytes(), Native.lastWorkspaceBytes());
    }

    @Test
    void aStatusWithoutTextIsNamed() throws InterruptedException {
        var text = new String[2];
        var fresh = Thread.ofPlatform().start(() -> {
            text[0] = Native.failure(culebra_h.CUL_SHAPE()).getMessage();
            text[1] = Native.failure(12345).getMessage();
        });
        fresh.join();
        assertEquals("SHAPE", text[0]);
        assertEquals("UNKNOWN", text[1]);
    }

    private static int openUnknownBackend() {
        try (var arena = Arena.ofConfined()) {
            return culebra_h.cul_device_open(99, 0, MemorySegment.NULL, arena.allocate(culebra_h.C_POINTER));
        }
    }
}
