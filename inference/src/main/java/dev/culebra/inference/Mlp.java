package dev.culebra.inference;

import dev.culebra.Ops;
import dev.culebra.Tensor;
import java.util.List;

/** {@code y = down(silu(gate x) * up x)}. */
final class Mlp implements FeedForward {
    private final long width;
    private final Weights.Weight<Linear> gateUp;
    private final Weights.Weight<Linear> down;

    Mlp(Weights weights, String prefix, long hidden, long width) {
        this.width = width;
        gateUp = weights.linear(
                hidden, List.of(Rows.all(prefix + ".gate_proj", width), Rows.all(prefix + ".up_proj", width)));
        down = weights.linear(prefix + ".down_proj", hidden, width);
    }

    @Override
    public void bind(ForwardPass pass, Tensor x, Tensor y) {
        try (var frame = pass.frame()) {
            var both = frame.stream(pass.rows(), 2 * width);
            gateUp.get().bind(pass, x, both);
            var gate = both.slice(1, 0, width);
            var up = both.slice(1, width, 2 * width);
            var product = frame.stream(pass.rows(), width);
            pass.then(stream -> Ops.siluMul(stream, gate, up, product));
            down.get().bind(pass, product, y);
        }
    }
}
