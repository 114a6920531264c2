package dev.culebra.inference;

import dev.culebra.AttentionOptions;
import dev.culebra.GateActivation;
import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Tensor;
import java.util.ArrayList;
import java.util.List;

/**
 * The softmax attention of Qwen3-Next: grouped queries, q and k normalised per head and turned in their first channels, and
 * a gate sigmoid(g) per channel on the result. Qiu et al., Gated Attention,
 * <a href="https://arxiv.org/abs/2505.06708">arXiv:2505.06708</a>.
 */
final class GatedAttention implements TokenMixer {
    private final ModelConfig.Attention config;
    private final float eps;
    private final Weights.Weight<Linear> qgkv;
    private final Weights.Weight<Tensor> qNorm;
    private final Weights.Weight<Tensor> kNorm;
    private final Weights.Weight<Linear> out;

    GatedAttention(Weights weights, String prefix, ModelConfig model) {
        config = model.attention();
        eps = model.rmsNormEps();
        qgkv = weights.linear(model.hiddenSize(), qgkvRows(prefix));
        // The norm of a head has no zero-centred form over three dimensions; its weight is stored less 1.
        qNorm = weights.vectorPlusOne(prefix + ".q_norm.weight", config.headDim());
        kNorm = weights.vectorPlusOne(prefix + ".k_norm.weight", config.headDim());
        out = weights.linear(prefix + ".o_proj", model.hiddenSize(), (long) config.heads() * config.headDim());
    }

    /** Stored are, per head, q and its gate; wanted all q, all gates, all k, all v. */
    private List<Rows> qgkvRows(String prefix) {
        long dim = config.headDim();
        var rows = new ArrayList<Rows>();
        for (var part = 0; part < 2; part++) {
            for (var head = 0; head < config.heads(); head++) {
                var from = (2 * head + part) * dim;
                rows.add(new Rows(prefix + ".q_proj", 2 * config.heads() * dim, from, from + dim));
            }
        }
        rows.add(Rows.all(prefix + ".k_proj", config.kvHeads() * dim));
        rows.add(Rows.all(prefix + ".v_proj", config.kvHeads() * dim));
        return rows;
    }

    @Override
    public LayerCache allocateCache(Scope scope, int pages) {
        return LayerCache.Attention.allocate(scope, config, pages);
    }

    @Override
    public void bind(ForwardPass pass, Tensor x, Tensor y, LayerCache own, Positions positions) {
        var cache = (LayerCache.Attention) own;
        long tokens = pass.rows();
        long dim = config.headDim();
        long width = config.heads() * dim;
        long kvWidth = config.kvHeads() * dim;
        try (var frame = pass.frame()) {
            var projected = frame.stream(tokens, 2 * width + 2 * kvWidth);
            qgkv.get().bind(pass, x, projected);
            var gate = projected.slice(1, width, 2 * width);
            var q = turned(pass, frame, heads(projected, 0, config.heads()), qNorm, positions);
            var k = turned(pass, frame, heads(projected, 2 * width, config.kvHeads()), kNorm, positions);
            var v = heads(projected, 2 * width + kvWidth, config.kvHeads());
            pass.then(stream -> Ops.pagedAppend(stream, k, v, positions.ids(), null, cache.pages()));

            var o = frame.stream(tokens, config.heads(), dim);
            attend(pass, q, o, cache, positions);
            var flat = o.reshape(tokens, width);
            pass.then(stream -> Ops.sigmoidMul(stream, flat, gate, flat));
            out.get().bind(pass, flat, y);
        }
    }

    private void attend(ForwardPass pass, Tensor q, Tensor o, LayerCache.Attention cache, Positions positions) {
        switch (positions) {
            case Positions.Moving moving -> {
                var q4 = q.reshape(1, pass.rows(), config.heads(), config.headDim());
                var o4 = o.reshape(1, pass.rows(), config.heads(), config.headDim());
                pass.then(stream -> Ops.pagedAttention(stream, q4, cache.pages(), moving.pageTable(), moving.length(), null, o4,
                        null, AttentionOptions.CAUSAL));
            }
            case Positions.Fixed fixed -> {
                var keys = cache.first(pass, cache.pages().k(), fixed.length());
                var values = cache.first(pass, cache.pages().v(), fixed.length());
                pass.then(stream -> Ops.attention(stream, q, keys, values, fixed.cuQ(), fixed.cuK(), null, o, null,
                        AttentionOptions.CAUSAL));
            }
        }
    }

    private Tensor heads(Tensor projected, long from, int heads) {
        return projected.slice(1, from, from + (long) heads * config.headDim())
                .reshape(projected.size(0), heads, config.headDim());
    }

    private Tensor turned(
            ForwardPass pass, ForwardPass.Frame frame, Tensor heads, Weights.Weight<Tensor> weight, Positions positions) {
        var turned = frame.stream(heads.shape());
        pass.then(stream ->
                Ops.gatedRmsNorm(stream, heads, null, weight.get(), turned, eps, GateActivation.SILU, true, 1));
        var rotary = positions.rotary();
        pass.then(stream -> Ops.rope(stream, turned, rotary.cos(), rotary.sin(), positions.ids(), turned, false));
        return turned;
    }
}
