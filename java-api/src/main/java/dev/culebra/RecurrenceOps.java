package dev.culebra;

import dev.culebra.bindings.generated.cul_recurrence_args;
import dev.culebra.bindings.generated.culebra_h;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** The recurrences of linear attention that differ only in how the state decays and is updated. */
abstract class RecurrenceOps extends MoeOps {
    RecurrenceOps() {}

    /**
     * Linear attention with a scalar decay: {@code S = e^g S + k v^T; o = scale S^T q}, a state S per sequence and value
     * head. Lightning Attention (a decay per head), RetNet and Mamba2 are of this form. Qin et al., Lightning
     * Attention-2, <a href="https://arxiv.org/abs/2401.04658">arXiv:2401.04658</a>.
     *
     * @param q [B, T, H, K], half or f32; K and V are multiples of 8 up to 256
     * @param k [B, T, H, K] as q
     * @param v [B, T, HV, V] as q, HV a multiple of H: value head j reads q and k head j / (HV / H)
     * @param gate the log decay, or what it is computed from; values below -30 count as -30
     * @param sequences packing and pooled states; null: B sequences of T tokens, one state each
     * @param initialState f32 [N, HV, V, K], or [N, HV, K, V] by the options' layout; a pool has P rows; null: zeros
     * @param o [B, T, HV, V] as q
     * @param finalState as initialState, and may be it; null: not wanted
     * @param checkpoints f32 [C, HV, V, K]: the state after each checkpointEvery tokens; only with that option
     * @param options scale, layout, checkpoints; qkL2norm must be off
     */
    public static void simpleGla(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Gate gate,
            @Nullable Sequences sequences,
            @Nullable Tensor initialState,
            Tensor o,
            @Nullable Tensor finalState,
            @Nullable Tensor checkpoints,
            RecurrenceOptions options) {
        recurrence(culebra_h::cul_simple_gla, "simple_gla", stream, q, k, v, null, gate, sequences, initialState, o,
                finalState, checkpoints, options);
    }

    /**
     * Gated linear attention: {@code S = diag(e^g) S + k v^T; o = scale S^T q}, a decay per key channel. Yang et al.,
     * <a href="https://arxiv.org/abs/2312.06635">arXiv:2312.06635</a>.
     *
     * @param q [B, T, H, K], half or f32; K and V are multiples of 8 up to 256
     * @param k [B, T, H, K] as q
     * @param v [B, T, HV, V] as q, HV a multiple of H: value head j reads q and k head j / (HV / H)
     * @param g f32 [B, T, HV, K], the log decay of each channel; values below -30 count as -30
     * @param sequences packing and pooled states; null: B sequences of T tokens, one state each
     * @param initialState f32 [N, HV, V, K], or [N, HV, K, V] by the options' layout; a pool has P rows; null: zeros
     * @param o [B, T, HV, V] as q
     * @param finalState as initialState, and may be it; null: not wanted
     * @param checkpoints f32 [C, HV, V, K]: the state after each checkpointEvery tokens; only with that option
     * @param options scale, layout, checkpoints; qkL2norm must be off
     */
    public static void gatedLinearAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor g,
            @Nullable Sequences sequences,
            @Nullable Tensor initialState,
            Tensor o,
            @Nullable Tensor finalState,
            @Nullable Tensor checkpoints,
            RecurrenceOptions options) {
        recurrence(culebra_h::cul_gated_linear_attention, "gated_linear_attention", stream, q, k, v, null, Gate.log(g), sequences, initialState, o,
                finalState, checkpoints, options);
    }

    /**
     * Delta rule: {@code S += k (beta (v - S^T k))^T; o = scale S^T q}. Keys whose {@code beta |k|^2} exceeds 2 make
     * the state grow without bound: normalise them. Yang et al., Parallelizing Linear Transformers with the Delta Rule,
     * <a href="https://arxiv.org/abs/2406.06484">arXiv:2406.06484</a>.
     *
     * @param q [B, T, H, K], half or f32; K and V are multiples of 8 up to 256
     * @param k [B, T, H, K] as q
     * @param v [B, T, HV, V] as q, HV a multiple of H: value head j reads q and k head j / (HV / H)
     * @param beta f32 [B, T, HV], used as given, 0 to 2
     * @param sequences packing and pooled states; null: B sequences of T tokens, one state each
     * @param initialState f32 [N, HV, V, K], or [N, HV, K, V] by the options' layout; a pool has P rows; null: zeros
     * @param o [B, T, HV, V] as q
     * @param finalState as initialState, and may be it; null: not wanted
     * @param checkpoints f32 [C, HV, V, K]: the state after each checkpointEvery tokens; only with that option
     * @param options scale, layout, checkpoints, normalisation of q and k
     */
    public static void deltaRule(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor beta,
            @Nullable Sequences sequences,
            @Nullable Tensor initialState,
            Tensor o,
            @Nullable Tensor finalState,
            @Nullable Tensor checkpoints,
            RecurrenceOptions options) {
        recurrence(culebra_h::cul_delta_rule, "delta_rule", stream, q, k, v, beta, null, sequences, initialState, o,
                finalState, checkpoints, options);
    }

    /**
     * Gated delta rule: {@code S = e^g S; S += k (beta (v - S^T k))^T; o = scale S^T q}, a state S per sequence and
     * value head. Prefill, and decoding with small T, are one operator: a state handed over continues a sequence. Yang et
     * al., Gated Delta Networks, <a href="https://arxiv.org/abs/2412.06464">arXiv:2412.06464</a>.
     *
     * @param q [B, T, H, K], half or f32; K and V are multiples of 8 up to 256
     * @param k [B, T, H, K] as q
     * @param v [B, T, HV, V] as q, HV a multiple of H: value head j reads q and k head j / (HV / H)
     * @param beta f32 [B, T, HV], used as given, 0 to 2
     * @param gate the log decay, or what it is computed from; values below -30 count as -30
     * @param sequences packing and pooled states; null: B sequences of T tokens, one state each
     * @param initialState f32 [N, HV, V, K], or [N, HV, K, V] by the options' layout; a pool has P rows; null: zeros
     * @param o [B, T, HV, V] as q
     * @param finalState as initialState, and may be it; null: not wanted
     * @param checkpoints f32 [C, HV, V, K]: the state after each checkpointEvery tokens; only with that option
     * @param options scale, layout, checkpoints, normalisation of q and k
     */
    public static void gatedDeltaRule(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor beta,
            Gate gate,
            @Nullable Sequences sequences,
            @Nullable Tensor initialState,
            Tensor o,
            @Nullable Tensor finalState,
            @Nullable Tensor checkpoints,
            RecurrenceOptions options) {
        recurrence(culebra_h::cul_gated_delta_rule, "gated_delta_rule", stream, q, k, v, beta, gate, sequences, initialState, o,
                finalState, checkpoints, options);
    }

    /**
     * Kimi delta attention: the gated delta rule with a decay per key channel, {@code S = diag(e^g) S; S += k (beta (v -
     * S^T k))^T; o = scale S^T q}. Kimi Linear, <a href="https://arxiv.org/abs/2510.26692">arXiv:2510.26692</a>.
     *
     * @param q [B, T, H, K], half or f32; K and V are multiples of 8 up to 256
     * @param k [B, T, H, K] as q
     * @param v [B, T, HV, V] as q, HV a multiple of H: value head j reads q and k head j / (HV / H)
     * @param beta f32 [B, T, HV], used as given, 0 to 2
     * @param gate the log decay, or what it is computed from; values below -30 count as -30
     * @param sequences packing and pooled states; null: B sequences of T tokens, one state each
     * @param initialState f32 [N, HV, V, K], or [N, HV, K, V] by the options' layout; a pool has P rows; null: zeros
     * @param o [B, T, HV, V] as q
     * @param finalState as initialState, and may be it; null: not wanted
     * @param checkpoints f32 [C, HV, V, K]: the state after each checkpointEvery tokens; only with that option
     * @param options scale, layout, checkpoints, normalisation of q and k
     */
    public static void kda(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor beta,
            Gate gate,
            @Nullable Sequences sequences,
            @Nullable Tensor initialState,
            Tensor o,
            @Nullable Tensor finalState,
            @Nullable Tensor checkpoints,
            RecurrenceOptions options) {
        recurrence(culebra_h::cul_kda, "kda", stream, q, k, v, beta, gate, sequences, initialState, o,
                finalState, checkpoints, options);
    }

    private interface Recurrence {
        int call(MemorySegment stream, MemorySegment args);
    }

    private static void recurrence(
            Recurrence function,
            String op,
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            @Nullable Tensor beta,
            @Nullable Gate gate,
            @Nullable Sequences sequences,
            @Nullable Tensor initialState,
            Tensor o,
            @Nullable Tensor finalState,
            @Nullable Tensor checkpoints,
            RecurrenceOptions options) {
        var args = stream.begin(op, cul_recurrence_args.sizeof());
        try {
            cul_recurrence_args.q(args, stream.in(q, "q"));
            cul_recurrence_args.k(args, stream.in(k, "k"));
            cul_recurrence_args.v(args, stream.in(v, "v"));
            cul_recurrence_args.beta(args, stream.optional(beta, "beta"));
            if (gate != null) {
                cul_recurrence_args.g(args, stream.optional(gate.g(), "g"));
                cul_recurrence_args.g_head(args, stream.optional(gate.gHead(), "g_head"));
                cul_recurrence_args.a(args, stream.optional(gate.a(), "a"));
                cul_recurrence_args.a_log(args, stream.optional(gate.aLog(), "a_log"));
                cul_recurrence_args.dt_bias(args, stream.optional(gate.dtBias(), "dt_bias"));
                cul_recurrence_args.gate_mode(args, gate.mode().ordinal());
                cul_recurrence_args.lower_bound(args, gate.lowerBound());
            }
            cul_recurrence_args.cu_seqlens(args, stream.optional(Sequences.cuSeqlens(sequences), "cu_seqlens"));
            cul_recurrence_args.initial_state(args, stream.optional(initialState, "initial_state"));
            cul_recurrence_args.state_read_index(args,
                    stream.optional(Sequences.readIndex(sequences), "state_read_index"));
            cul_recurrence_args.state_write_index(args,
                    stream.optional(Sequences.writeIndex(sequences), "state_write_index"));
            cul_recurrence_args.o(args, stream.out(o, "o"));
            cul_recurrence_args.final_state(args, stream.optionalOut(finalState, "final_state"));
            cul_recurrence_args.checkpoints(args, stream.optionalOut(checkpoints, "checkpoints"));
            cul_recurrence_args.scale(args, options.scale());
            cul_recurrence_args.state_layout(args, options.stateLayout().ordinal());
            cul_recurrence_args.checkpoint_every(args, options.checkpointEvery());
            cul_recurrence_args.qk_l2norm(args, options.qkL2norm() ? 1 : 0);
            while (stream.again(function.call(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
