package dev.culebra.inference;

import dev.culebra.Ops;
import dev.culebra.Scope;
import dev.culebra.Tensor;

/** A layer: {@code h += mixer(norm(h)); h += mlp(norm(h))}, the mixer a gated delta rule or attention, the MLP dense or of experts. */
final class DecoderLayer {
    private final float eps;
    private final Weights.Weight<Tensor> inputNorm;
    private final TokenMixer mixer;
    private final Weights.Weight<Tensor> mlpNorm;
    private final FeedForward mlp;

    DecoderLayer(Weights weights, int index, ModelConfig config) {
        var prefix = "model.layers." + index;
        var hidden = config.hiddenSize();
        var experts = config.experts();
        eps = config.rmsNormEps();
        inputNorm = weights.vector(prefix + ".input_layernorm.weight", hidden);
        mixer = switch (config.layers().get(index)) {
            case LINEAR_ATTENTION -> new GatedDeltaNet(weights, prefix + ".linear_attn", config);
            case FULL_ATTENTION -> new GatedAttention(weights, prefix + ".self_attn", config);
        };
        mlpNorm = weights.vector(prefix + ".post_attention_layernorm.weight", hidden);
        mlp = experts == null || config.denseLayers().contains(index)
                ? new Mlp(weights, prefix + ".mlp", hidden, config.denseWidth())
                : new SparseMoe(weights, prefix + ".mlp", experts, hidden);
    }

    LayerCache allocateCache(Scope scope, int pages) {
        return mixer.allocateCache(scope, pages);
    }

    /**
     * Appends the layer. {@code update} [T, D] holds what the layer before is still to add to {@code residual} [T, D], and
     * then what this one is: sums are fused with the norms behind them.
     */
    void bind(ForwardPass pass, Tensor residual, Tensor update, LayerCache cache, Positions positions) {
        try (var frame = pass.frame()) {
            var x = frame.stream(residual.shape());
            pass.then(stream -> Ops.rmsNorm(stream, update, inputNorm.get(), residual, x, residual, eps, true));
            mixer.bind(pass, x, update, cache, positions);
            pass.then(stream -> Ops.rmsNorm(stream, update, mlpNorm.get(), residual, x, residual, eps, true));
            mlp.bind(pass, x, update);
        }
    }
}
