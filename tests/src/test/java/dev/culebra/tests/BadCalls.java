package dev.culebra.tests;

import dev.culebra.tests.ContractSuite.BadCall;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/** The table of bad calls. Each has one fault. */
final class BadCalls {
    private final List<BadCall> calls = new ArrayList<>();

    private BadCalls() {}

    static List<BadCall> all() {
        var table = new BadCalls();
        GemmBadCalls.add(table);
        PackedGemmBadCalls.add(table);
        GlueBadCalls.add(table);
        LinearAttentionBadCalls.add(table);
        AttentionBadCalls.add(table);
        KvCacheBadCalls.add(table);
        EstimatedAttentionBadCalls.add(table);
        SparseAttentionBadCalls.add(table);
        MoeBadCalls.add(table);
        return table.calls;
    }

    void bad(String op, String fault, Refused refused, Consumer<TestDevice> call, String... fragments) {
        refusedBy(op, op, fault, refused, call, fragments);
    }

    /** A checkpoint for {@code op}, which the function that plans its packing refuses. */
    void unpackable(String op, String fault, Refused refused, Consumer<TestDevice> call, String... fragments) {
        refusedBy("pack_plan", op, fault, refused, call, fragments);
    }

    private void refusedBy(String refuser, String op, String fault, Refused refused, Consumer<TestDevice> call,
            String... fragments) {
        calls.add(new BadCall(refuser, op, fault, refused, List.of(fragments), call));
    }
}
