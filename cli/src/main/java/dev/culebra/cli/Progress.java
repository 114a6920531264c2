package dev.culebra.cli;

import java.io.PrintWriter;

/** A bar on the terminal's error stream; nothing where that is no terminal. */
final class Progress implements AutoCloseable {
    private static final int WIDTH = 30;
    private static final String ERASE_LINE = "\r\033[K";

    private final PrintWriter out;
    private final boolean visible;
    private final int total;
    private int done;

    Progress(PrintWriter out, int total) {
        this.out = out;
        this.total = total;
        this.visible = System.console() != null && System.console().isTerminal();
    }

    /** One more is done; {@code next} comes now. */
    void step(String next) {
        if (visible) {
            var filled = WIDTH * done / total;
            out.print(ERASE_LINE + "[" + "#".repeat(filled) + " ".repeat(WIDTH - filled) + "] " + done + "/" + total + " " + next);
            out.flush();
        }
        done++;
    }

    @Override
    public void close() {
        if (visible) {
            out.print(ERASE_LINE);
            out.flush();
        }
    }
}
