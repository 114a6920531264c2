package dev.culebra.inference;

import dev.culebra.DType;
import dev.culebra.ExpertActivation;
import dev.culebra.ExpertWeights;
import dev.culebra.Ops;
import dev.culebra.RouteOptions;
import dev.culebra.Tensor;

/**
 * Mixture of experts: each token goes to the experts that the router gives the largest probabilities, and to a shared one,
 * whose result is scaled by a sigmoid of the token's own.
 */
final class SparseMoe implements FeedForward {
    private final ModelConfig.Experts config;
    private final RouteOptions route;
    private final Weights.Weight<Linear> router;
    private final Weights.Weight<ExpertWeights> experts;
    private final Mlp shared;
    private final Weights.Weight<Linear> sharedGate;

    SparseMoe(Weights weights, String prefix, ModelConfig.Experts config, long hidden) {
        this.config = config;
        route = RouteOptions.top(config.perToken()).withRenormalize(config.renormalize());
        router = weights.linear(prefix + ".gate", config.count(), hidden);
        experts = weights.experts(prefix + ".experts", config, hidden);
        shared = new Mlp(weights, prefix + ".shared_expert", hidden, config.sharedWidth());
        sharedGate = weights.linear(prefix + ".shared_expert_gate", 1, hidden);
    }

    @Override
    public void bind(ForwardPass pass, Tensor x, Tensor y) {
        long tokens = pass.rows();
        try (var frame = pass.frame()) {
            var logits = frame.stream(tokens, config.count());
            router.get().bind(pass, x, logits);
            var shares = frame.take(DType.F32, tokens, config.perToken());
            var ids = frame.take(DType.I32, tokens, config.perToken());
            pass.then(stream -> Ops.moeRoute(stream, logits, null, shares, ids, route));

            var halfX = frame.take(Precision.HALF, x.shape());
            var halfY = frame.take(Precision.HALF, y.shape());
            pass.then(stream -> Ops.cast(stream, x, halfX));
            pass.then(stream -> Ops.moeMlp(stream, halfX, experts.get(), shares, ids, halfY, ExpertActivation.SILU));
            var routed = frame.stream(y.shape());
            pass.then(stream -> Ops.cast(stream, halfY, routed));

            var sharedY = frame.stream(y.shape());
            shared.bind(pass, x, sharedY);
            var gate = frame.stream(tokens, 1);
            sharedGate.get().bind(pass, x, gate);
            pass.then(stream -> Ops.sigmoidMul(stream, sharedY, gate, sharedY));
            pass.then(stream -> Ops.add(stream, routed, sharedY, y));
        }
    }
}
