package dev.culebra.inference;

import dev.culebra.Activation;
import dev.culebra.Gate;
import dev.culebra.GateActivation;
import dev.culebra.Ops;
import dev.culebra.RecurrenceOptions;
import dev.culebra.Scope;
import dev.culebra.Tensor;
import java.util.ArrayList;
import java.util.List;

/**
 * The linear attention of Qwen3-Next: q, k and v pass a short convolution, then the gated delta rule; its result is
 * normalised per head, gated by silu(z), and projected. Yang et al., Gated Delta Networks,
 * <a href="https://arxiv.org/abs/2412.06464">arXiv:2412.06464</a>.
 */
final class GatedDeltaNet implements TokenMixer {
    private static final RecurrenceOptions OPTIONS = RecurrenceOptions.DEFAULT.withQkL2norm(true);

    private final ModelConfig.Delta config;
    private final float eps;
    private final Weights.Weight<Linear> qkvz;
    private final Weights.Weight<Linear> b;
    private final Weights.Weight<Linear> a;
    private final Weights.Weight<Tensor> ones;
    private final Weights.Weight<Tensor> conv;
    private final Weights.Weight<Tensor> aLog;
    private final Weights.Weight<Tensor> dtBias;
    private final Weights.Weight<Tensor> norm;
    private final Weights.Weight<Linear> out;

    GatedDeltaNet(Weights weights, String prefix, ModelConfig model) {
        config = model.delta();
        eps = model.rmsNormEps();
        var hidden = model.hiddenSize();
        qkvz = weights.linear(hidden, qkvzRows(prefix + ".in_proj_qkvz"));
        b = weights.linear(hidden, baRows(prefix + ".in_proj_ba", 0));
        a = weights.linear(hidden, baRows(prefix + ".in_proj_ba", 1));
        ones = weights.ones(1, config.valueHeads());
        long channels = config.convChannels();
        conv = weights.tensor(
                prefix + ".conv1d.weight", new long[] {channels, 1, config.convWidth()}, channels, config.convWidth());
        aLog = weights.vector(prefix + ".A_log", config.valueHeads());
        dtBias = weights.vector(prefix + ".dt_bias", config.valueHeads());
        norm = weights.vector(prefix + ".norm.weight", config.valueDim());
        out = weights.linear(prefix + ".out_proj", hidden, config.valueWidth());
    }

    /** Stored are, per key head, its q, its k, then v and z of its value heads; wanted all q, all k, all v, all z. */
    private List<Rows> qkvzRows(String name) {
        var valuesPerHead = config.valueWidth() / config.keyHeads();
        int[] starts = {0, config.keyDim(), 2 * config.keyDim(), 2 * config.keyDim() + valuesPerHead,
            2 * config.keyDim() + 2 * valuesPerHead};
        var perHead = starts[4];
        var rows = new ArrayList<Rows>();
        for (var part = 0; part < 4; part++) {
            for (var head = 0; head < config.keyHeads(); head++) {
                rows.add(new Rows(name, (long) perHead * config.keyHeads(), (long) head * perHead + starts[part],
                        (long) head * perHead + starts[part + 1]));
            }
        }
        return rows;
    }

    /** Stored are, per key head, b and then a of its value heads. */
    private List<Rows> baRows(String name, int part) {
        var perHead = config.valueHeads() / config.keyHeads();
        var rows = new ArrayList<Rows>();
        for (var head = 0L; head < config.keyHeads(); head++) {
            var from = (2 * head + part) * perHead;
            rows.add(new Rows(name, 2L * config.valueHeads(), from, from + perHead));
        }
        return rows;
    }

    @Override
    public LayerCache allocateCache(Scope scope, int pages) {
        return LayerCache.Delta.allocate(scope, config);
    }

    @Override
    public void bind(ForwardPass pass, Tensor x, Tensor y, LayerCache own, Positions positions) {
        var cache = (LayerCache.Delta) own;
        long tokens = pass.rows();
        long keys = config.keyWidth();
        long values = config.valueWidth();
        long channels = config.convChannels();
        long heads = config.valueHeads();
        try (var frame = pass.frame()) {
            var projected = frame.stream(tokens, channels + values);
            qkvz.get().bind(pass, x, projected);
            var logits = frame.stream(tokens, heads);
            b.get().bind(pass, x, logits);
            var beta = frame.stream(tokens, heads);
            var one = pass.adopt(ones.get().expand(0, tokens));
            pass.then(stream -> Ops.sigmoidMul(stream, one, logits, beta));
            var decay = frame.stream(tokens, heads);
            a.get().bind(pass, x, decay);

            var mixed = frame.stream(1, tokens, channels);
            var unmixed = projected.slice(1, 0, channels).reshape(1, tokens, channels);
            pass.then(stream -> Ops.causalConv1d(stream, unmixed, conv.get(), null, cache.conv(), null, mixed, cache.conv(),
                    Activation.SILU));

            var q = mixed.slice(2, 0, keys).reshape(1, tokens, config.keyHeads(), config.keyDim());
            var k = mixed.slice(2, keys, 2 * keys).reshape(1, tokens, config.keyHeads(), config.keyDim());
            var v = mixed.slice(2, 2 * keys, channels).reshape(1, tokens, heads, config.valueDim());
            var beta3 = beta.reshape(1, tokens, heads);
            var gate = Gate.softplus(decay.reshape(1, tokens, heads), aLog.get(), dtBias.get());
            var o = frame.stream(1, tokens, heads, config.valueDim());
            pass.then(stream -> Ops.gatedDeltaRule(stream, q, k, v, beta3, gate, null, cache.state(), o, cache.state(), null,
                    OPTIONS));

            var rows = o.reshape(tokens, heads, config.valueDim());
            var z = projected.slice(1, channels, channels + values).reshape(tokens, heads, config.valueDim());
            pass.then(stream -> Ops.gatedRmsNorm(stream, rows, z, norm.get(), rows, eps, GateActivation.SILU, true, 1));
            out.get().bind(pass, o.reshape(tokens, values), y);
        }
    }
}
