package dev.culebra;

import dev.culebra.bindings.generated.cul_causal_conv1d_args;
import dev.culebra.bindings.generated.cul_conv_fft_args;
import dev.culebra.bindings.generated.cul_gated_rms_norm_args;
import dev.culebra.bindings.generated.cul_linear_attention_args;
import dev.culebra.bindings.generated.cul_local_linear_attention_args;
import dev.culebra.bindings.generated.cul_mixture_of_memories_args;
import dev.culebra.bindings.generated.cul_mlstm_args;
import dev.culebra.bindings.generated.culebra_h;
import org.jspecify.annotations.Nullable;

/** Linear attention: recurrences over a state per sequence and value head. */
abstract class LinearAttentionOps extends RecurrenceOps {
    LinearAttentionOps() {}

    /**
     * Linear attention: {@code S += k v^T, z += k; o = scale S^T q}, or normalised {@code scale S^T q / (scale q.z +
     * eps)}, with q and k behind a feature map that makes them F wide. Katharopoulos et al., <a
     * href="https://arxiv.org/abs/2006.16236">arXiv:2006.16236</a>.
     *
     * @param q [B, T, H, K], half or f32; K and V are multiples of 8 up to 256
     * @param k [B, T, H, K] as q
     * @param v [B, T, HV, V] as q, HV a multiple of H: value head j reads q and k head j / (HV / H)
     * @param sequences packing and pooled states; null: B sequences of T tokens, one state each
     * @param initialState f32 [N, HV, V, F], or [N, HV, F, V] by the options' layout; a pool has P rows; null: zeros
     * @param zState f32 [N, H, F]: z of the sequences' past, with initialState and the normalised form alone
     * @param o [B, T, HV, V] as q
     * @param finalState as initialState, and may be it; null: not wanted
     * @param finalZState as zState, and may be it; null: not wanted
     * @param checkpoints f32 [C, HV, V, F]: S after each checkpointEvery tokens; only with that option
     * @param options feature map, normalisation, direction, scale, layout, checkpoints
     */
    public static void linearAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            @Nullable Sequences sequences,
            @Nullable Tensor initialState,
            @Nullable Tensor zState,
            Tensor o,
            @Nullable Tensor finalState,
            @Nullable Tensor finalZState,
            @Nullable Tensor checkpoints,
            LinearAttentionOptions options) {
        var args = stream.begin("linear_attention", cul_linear_attention_args.sizeof());
        try {
            cul_linear_attention_args.q(args, stream.in(q, "q"));
            cul_linear_attention_args.k(args, stream.in(k, "k"));
            cul_linear_attention_args.v(args, stream.in(v, "v"));
            cul_linear_attention_args.cu_seqlens(args, stream.optional(Sequences.cuSeqlens(sequences), "cu_seqlens"));
            cul_linear_attention_args.initial_state(args, stream.optional(initialState, "initial_state"));
            cul_linear_attention_args.z_state(args, stream.optional(zState, "z_state"));
            cul_linear_attention_args.state_read_index(args,
                    stream.optional(Sequences.readIndex(sequences), "state_read_index"));
            cul_linear_attention_args.state_write_index(args,
                    stream.optional(Sequences.writeIndex(sequences), "state_write_index"));
            cul_linear_attention_args.o(args, stream.out(o, "o"));
            cul_linear_attention_args.final_state(args, stream.optionalOut(finalState, "final_state"));
            cul_linear_attention_args.final_z_state(args, stream.optionalOut(finalZState, "final_z_state"));
            cul_linear_attention_args.checkpoints(args, stream.optionalOut(checkpoints, "checkpoints"));
            cul_linear_attention_args.scale(args, options.scale());
            cul_linear_attention_args.state_layout(args, options.stateLayout().ordinal());
            cul_linear_attention_args.checkpoint_every(args, options.checkpointEvery());
            cul_linear_attention_args.normalize(args, options.normalize() ? 1 : 0);
            cul_linear_attention_args.eps(args, options.eps());
            cul_linear_attention_args.feature_map(args, options.featureMap().ordinal());
            cul_linear_attention_args.causal(args, options.causal() ? 1 : 0);
            while (stream.again(culebra_h.cul_linear_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * mLSTM with the exponential input gate: {@code m' = max(logsigmoid(f) + m, i); C = e^(logsigmoid(f) + m - m') C +
     * e^(i - m') k v^T}, n alike with v = 1; {@code o = scale C^T q / (max(|scale n.q|, e^-m') + eps)}. With the sigmoid
     * gate {@code C = sigmoid(f) C + sigmoid(i) k v^T}, n alike, {@code o = scale C^T q / (max(|scale n.q|, 1) + eps)},
     * or not normalised {@code o = scale C^T q}. Beck et al., xLSTM, <a
     * href="https://arxiv.org/abs/2405.04517">arXiv:2405.04517</a>, and Tiled Flash Linear Attention, <a
     * href="https://arxiv.org/abs/2503.14376">arXiv:2503.14376</a>.
     *
     * @param q [B, T, H, K], half or f32; K is a multiple of 8 up to 256
     * @param k [B, T, H, K] as q
     * @param v [B, T, H, V] as q; V is a multiple of 8 up to 512
     * @param i f32 [B, T, H]: the input gate before its activation
     * @param f f32 [B, T, H]: the forget gate before its activation
     * @param sequences packing and pooled states; null: B sequences of T tokens, one state each
     * @param initial C f32 [N, H, V, K] (or K, V), n [N, H, K] with the normalised form, m [N, H] with the exponential
     *     gate: all of them; null: zeros
     * @param o [B, T, H, V] as q
     * @param last as initial, each of them may be the initial one, each may be null: not wanted; null: none is
     * @param checkpoints f32 [C, H, V, K]: C after each checkpointEvery tokens; only with that option
     * @param options gates, normalisation, scale, layout, checkpoints
     */
    public static void mlstm(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor i,
            Tensor f,
            @Nullable Sequences sequences,
            @Nullable MlstmState initial,
            Tensor o,
            @Nullable MlstmState last,
            @Nullable Tensor checkpoints,
            MlstmOptions options) {
        var args = stream.begin("mlstm", cul_mlstm_args.sizeof());
        try {
            cul_mlstm_args.q(args, stream.in(q, "q"));
            cul_mlstm_args.k(args, stream.in(k, "k"));
            cul_mlstm_args.v(args, stream.in(v, "v"));
            cul_mlstm_args.i(args, stream.in(i, "i"));
            cul_mlstm_args.f(args, stream.in(f, "f"));
            cul_mlstm_args.cu_seqlens(args, stream.optional(Sequences.cuSeqlens(sequences), "cu_seqlens"));
            if (initial != null) {
                cul_mlstm_args.initial_state(args, stream.optional(initial.c(), "initial_state"));
                cul_mlstm_args.n_state(args, stream.optional(initial.n(), "n_state"));
                cul_mlstm_args.m_state(args, stream.optional(initial.m(), "m_state"));
            }
            cul_mlstm_args.state_read_index(args, stream.optional(Sequences.readIndex(sequences), "state_read_index"));
            cul_mlstm_args.state_write_index(args, stream.optional(Sequences.writeIndex(sequences), "state_write_index"));
            cul_mlstm_args.o(args, stream.out(o, "o"));
            if (last != null) {
                cul_mlstm_args.final_state(args, stream.optionalOut(last.c(), "final_state"));
                cul_mlstm_args.final_n_state(args, stream.optionalOut(last.n(), "final_n_state"));
                cul_mlstm_args.final_m_state(args, stream.optionalOut(last.m(), "final_m_state"));
            }
            cul_mlstm_args.checkpoints(args, stream.optionalOut(checkpoints, "checkpoints"));
            cul_mlstm_args.scale(args, options.scale());
            cul_mlstm_args.state_layout(args, options.stateLayout().ordinal());
            cul_mlstm_args.checkpoint_every(args, options.checkpointEvery());
            cul_mlstm_args.input_gate(args, options.inputGate().ordinal());
            cul_mlstm_args.normalize(args, options.normalize() ? 1 : 0);
            cul_mlstm_args.eps(args, options.eps());
            cul_mlstm_args.soft_cap(args, options.softCap());
            while (stream.again(culebra_h.cul_mlstm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Mixture of memories: M gated delta rule states per sequence and value head. Slot j of a token updates and reads
     * memory ids[j] by one step of {@link #gatedDeltaRule}; {@code o = sum_j weights[j] o_j}. Du et al., <a
     * href="https://arxiv.org/abs/2502.13685">arXiv:2502.13685</a>.
     *
     * @param q [B, T, H, K], half or f32, shared by the slots; or, where each memory has projections of its own, [B, T,
     *     slots, H, K], and then k, v, beta and the gate have that axis after T too
     * @param k as q
     * @param v [B, T, HV, V] as q
     * @param beta f32 [B, T, HV]
     * @param gate the log decay, or what it is computed from
     * @param ids i32 [B, T, slots]: which memory a slot is routed to; -1: none; the ids of a token differ
     * @param weights f32 [B, T, slots] of the slots' outputs
     * @param sequences packing and pooled states; null: B sequences of T tokens
     * @param initialState f32 [N, M, HV, V, K], or [N, M, HV, K, V] by the options' layout; a pool has P rows
     * @param o [B, T, HV, V] as q
     * @param finalState as initialState, and may be it; null: not wanted
     * @param checkpoints f32 [C, M, HV, V, K]: the states after each checkpointEvery tokens; only with that option
     * @param options scale, layout, checkpoints, normalisation of q and k
     */
    public static void mixtureOfMemories(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            Tensor beta,
            Gate gate,
            Tensor ids,
            Tensor weights,
            @Nullable Sequences sequences,
            Tensor initialState,
            Tensor o,
            @Nullable Tensor finalState,
            @Nullable Tensor checkpoints,
            RecurrenceOptions options) {
        var args = stream.begin("mixture_of_memories", cul_mixture_of_memories_args.sizeof());
        try {
            cul_mixture_of_memories_args.q(args, stream.in(q, "q"));
            cul_mixture_of_memories_args.k(args, stream.in(k, "k"));
            cul_mixture_of_memories_args.v(args, stream.in(v, "v"));
            cul_mixture_of_memories_args.beta(args, stream.in(beta, "beta"));
            cul_mixture_of_memories_args.g(args, stream.optional(gate.g(), "g"));
            cul_mixture_of_memories_args.a(args, stream.optional(gate.a(), "a"));
            cul_mixture_of_memories_args.a_log(args, stream.optional(gate.aLog(), "a_log"));
            cul_mixture_of_memories_args.dt_bias(args, stream.optional(gate.dtBias(), "dt_bias"));
            cul_mixture_of_memories_args.ids(args, stream.in(ids, "ids"));
            cul_mixture_of_memories_args.weights(args, stream.in(weights, "weights"));
            cul_mixture_of_memories_args.cu_seqlens(args, stream.optional(Sequences.cuSeqlens(sequences), "cu_seqlens"));
            cul_mixture_of_memories_args.initial_state(args, stream.in(initialState, "initial_state"));
            cul_mixture_of_memories_args.state_read_index(args,
                    stream.optional(Sequences.readIndex(sequences), "state_read_index"));
            cul_mixture_of_memories_args.state_write_index(args,
                    stream.optional(Sequences.writeIndex(sequences), "state_write_index"));
            cul_mixture_of_memories_args.o(args, stream.out(o, "o"));
            cul_mixture_of_memories_args.final_state(args, stream.optionalOut(finalState, "final_state"));
            cul_mixture_of_memories_args.checkpoints(args, stream.optionalOut(checkpoints, "checkpoints"));
            cul_mixture_of_memories_args.scale(args, options.scale());
            cul_mixture_of_memories_args.state_layout(args, options.stateLayout().ordinal());
            cul_mixture_of_memories_args.checkpoint_every(args, options.checkpointEvery());
            cul_mixture_of_memories_args.qk_l2norm(args, options.qkL2norm() ? 1 : 0);
            cul_mixture_of_memories_args.gate_mode(args, gate.mode().ordinal());
            while (stream.again(culebra_h.cul_mixture_of_memories(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Local linear attention: for each query a ridge regression of v on the keys that it sees. With {@code w = e^(scale
     * q.k), z = k - q, omega = sum w, mu = sum w z, rho = (sum w z z^T + lambda I)^-1 mu}: {@code o = sum w (1 - z.rho) v
     * / (omega - mu.rho)}. Quadratic in T, with the keys and values as the cache. Zuo et al., <a
     * href="https://arxiv.org/abs/2510.01450">arXiv:2510.01450</a>.
     *
     * @param q [B, T, H, K], half or f32; K and V are multiples of 8 up to 256
     * @param k [B, S, H, K] as q, S at least T: the queries are its last T positions, causal
     * @param v [B, S, HV, V] as q, HV a multiple of H: value head j reads q and k head j / (HV / H)
     * @param cuSeqlens i32 [N+1]: where N packed sequences begin in q; then B is 1; null: each row of the batch is one
     * @param cuSeqlensK i32 [N+1]: where they begin in k and v; with cuSeqlens
     * @param o [B, T, HV, V] as q
     * @param options scale, ridge, when the solver may stop
     */
    public static void localLinearAttention(
            Stream stream,
            Tensor q,
            Tensor k,
            Tensor v,
            @Nullable Tensor cuSeqlens,
            @Nullable Tensor cuSeqlensK,
            Tensor o,
            LocalLinearAttentionOptions options) {
        var args = stream.begin("local_linear_attention", cul_local_linear_attention_args.sizeof());
        try {
            cul_local_linear_attention_args.q(args, stream.in(q, "q"));
            cul_local_linear_attention_args.k(args, stream.in(k, "k"));
            cul_local_linear_attention_args.v(args, stream.in(v, "v"));
            cul_local_linear_attention_args.cu_seqlens(args, stream.optional(cuSeqlens, "cu_seqlens"));
            cul_local_linear_attention_args.cu_seqlens_k(args, stream.optional(cuSeqlensK, "cu_seqlens_k"));
            cul_local_linear_attention_args.o(args, stream.out(o, "o"));
            cul_local_linear_attention_args.scale(args, options.scale());
            cul_local_linear_attention_args.ridge_lambda(args, options.ridgeLambda());
            cul_local_linear_attention_args.cg_iters(args, options.cgIters());
            cul_local_linear_attention_args.tol(args, options.tol());
            while (stream.again(culebra_h.cul_local_linear_attention(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Short causal convolution per channel: {@code y_t = act(bias + sum_j w_j x_(t-W+1+j))}.
     *
     * @param x [B, T, C], half or f32
     * @param w [C, W] as x, W 2 to 4
     * @param bias [C] as x; null: none
     * @param state [N, C, W-1] as x: the last W-1 inputs, oldest first; null: zeros
     * @param sequences packing and pooled states; null: B sequences of T tokens
     * @param y [B, T, C] as x
     * @param finalState as state, and may be it, copied exactly; null: not wanted
     * @param act {@link Activation#NONE} or {@link Activation#SILU}
     */
    public static void causalConv1d(
            Stream stream,
            Tensor x,
            Tensor w,
            @Nullable Tensor bias,
            @Nullable Tensor state,
            @Nullable Sequences sequences,
            Tensor y,
            @Nullable Tensor finalState,
            Activation act) {
        var args = stream.begin("causal_conv1d", cul_causal_conv1d_args.sizeof());
        try {
            cul_causal_conv1d_args.x(args, stream.in(x, "x"));
            cul_causal_conv1d_args.w(args, stream.in(w, "w"));
            cul_causal_conv1d_args.bias(args, stream.optional(bias, "bias"));
            cul_causal_conv1d_args.state(args, stream.optional(state, "state"));
            cul_causal_conv1d_args.cu_seqlens(args, stream.optional(Sequences.cuSeqlens(sequences), "cu_seqlens"));
            cul_causal_conv1d_args.state_read_index(args,
                    stream.optional(Sequences.readIndex(sequences), "state_read_index"));
            cul_causal_conv1d_args.state_write_index(args,
                    stream.optional(Sequences.writeIndex(sequences), "state_write_index"));
            cul_causal_conv1d_args.y(args, stream.out(y, "y"));
            cul_causal_conv1d_args.final_state(args, stream.optionalOut(finalState, "final_state"));
            cul_causal_conv1d_args.act(args, act.ordinal());
            while (stream.again(culebra_h.cul_causal_conv1d(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Long causal convolution per channel: {@code y[t] = sum_(s < L) filter[c,s] x[t-s] + skip[c] x[t]}, with x zero before its
     * first token (Poli et al., arXiv:2302.10866; on tensor cores Fu et al., arXiv:2311.05908).
     *
     * <p>Filters of more than a few taps go through Fourier transforms of windows of x, in f32: the error of a channel is relative to the norms of
     * its filter and its input, not to each {@code y[t]}, and a NaN or an infinity reaches every output of its window, of its own channel and
     * of the neighbour that shares the transform. A row of the batch gets the same bits in any company. Returns before the work is done.
     *
     * @param x [B, T, C], half or f32
     * @param filter f32 [C, L], L at most T (any L where T is 0); L = 0 is a filter of zeros
     * @param skip [C], f32 or as x; null: none
     * @param y [B, T, C] as x; overlaps no input
     * @throws CulebraException with SHAPE where L exceeds T, or extents disagree; DTYPE where filter is not f32 or y not as x;
     *     UNSUPPORTED where y overlaps an input
     */
    public static void convFft(Stream stream, Tensor x, Tensor filter, @Nullable Tensor skip, Tensor y) {
        var args = stream.begin("conv_fft", cul_conv_fft_args.sizeof());
        try {
            cul_conv_fft_args.x(args, stream.in(x, "x"));
            cul_conv_fft_args.filter(args, stream.in(filter, "filter"));
            cul_conv_fft_args.skip(args, stream.optional(skip, "skip"));
            cul_conv_fft_args.y(args, stream.out(y, "y"));
            while (stream.again(culebra_h.cul_conv_fft(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = rms(x) * weight * act(gate)}, or with the norm behind the gate {@code rms(x act(gate)) * weight},
     * where {@code rms(x) = x / sqrt(mean(x^2) + eps)} over D / groups channels at a time.
     *
     * @param x [..., D], half or f32; of any rank where all but three of the dimensions before the last are contiguous
     * @param gate as x; null: 1
     * @param weight [D], as x or f32
     * @param y as x; may be x or gate
     * @param eps added to the mean square
     * @param act of the gate
     * @param normBeforeGate which of the two forms
     * @param groups of channels that are normalised apart; 1: all together
     */
    public static void gatedRmsNorm(
            Stream stream,
            Tensor x,
            @Nullable Tensor gate,
            Tensor weight,
            Tensor y,
            float eps,
            GateActivation act,
            boolean normBeforeGate,
            int groups) {
        var args = stream.begin("gated_rms_norm", cul_gated_rms_norm_args.sizeof());
        try {
            cul_gated_rms_norm_args.x(args, stream.in(x, "x"));
            cul_gated_rms_norm_args.gate(args, stream.optional(gate, "gate"));
            cul_gated_rms_norm_args.weight(args, stream.in(weight, "weight"));
            cul_gated_rms_norm_args.y(args, stream.out(y, "y"));
            cul_gated_rms_norm_args.eps(args, eps);
            cul_gated_rms_norm_args.act(args, act.ordinal());
            cul_gated_rms_norm_args.norm_before_gate(args, normBeforeGate ? 1 : 0);
            cul_gated_rms_norm_args.groups(args, groups);
            while (stream.again(culebra_h.cul_gated_rms_norm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
