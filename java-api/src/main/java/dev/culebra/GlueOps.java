package dev.culebra;

import dev.culebra.bindings.generated.cul_add_args;
import dev.culebra.bindings.generated.cul_argmax_args;
import dev.culebra.bindings.generated.cul_cast_args;
import dev.culebra.bindings.generated.cul_copy_strided_args;
import dev.culebra.bindings.generated.cul_embedding_args;
import dev.culebra.bindings.generated.cul_gelu_mul_args;
import dev.culebra.bindings.generated.cul_layer_norm_args;
import dev.culebra.bindings.generated.cul_rms_norm_args;
import dev.culebra.bindings.generated.cul_rope_args;
import dev.culebra.bindings.generated.cul_sample_args;
import dev.culebra.bindings.generated.cul_scale_args;
import dev.culebra.bindings.generated.cul_sigmoid_mul_args;
import dev.culebra.bindings.generated.cul_silu_mul_args;
import dev.culebra.bindings.generated.cul_softmax_args;
import dev.culebra.bindings.generated.culebra_h;
import org.jspecify.annotations.Nullable;

/**
 * The small operators between the matrix products. Inputs may have any strides but the innermost, which is 1, unless a
 * method says otherwise; outputs overlap no input, except that one may be an input where that is said. T = 0 is legal.
 */
abstract class GlueOps extends SparseAttentionOps {
    GlueOps() {}

    /**
     * {@code y = h / sqrt(mean(h^2) + eps) * gain} with {@code h = x + residual}, and {@code gain = weight} or, zero
     * centred, {@code 1 + weight}. Zhang and Sennrich, <a href="https://arxiv.org/abs/1910.07467">arXiv:1910.07467</a>.
     *
     * @param x [T, D], half or f32; all of the others are as x
     * @param weight [D]
     * @param residual [T, D]; null: h = x
     * @param y [T, D]; may be x
     * @param residualOut [T, D], h as rounded, of which y is computed; may be residual or x; only with residual
     */
    public static void rmsNorm(
            Stream stream,
            Tensor x,
            Tensor weight,
            @Nullable Tensor residual,
            Tensor y,
            @Nullable Tensor residualOut,
            float eps,
            boolean zeroCentered) {
        var args = stream.begin("rms_norm", cul_rms_norm_args.sizeof());
        try {
            cul_rms_norm_args.x(args, stream.in(x, "x"));
            cul_rms_norm_args.weight(args, stream.in(weight, "weight"));
            cul_rms_norm_args.residual(args, stream.optional(residual, "residual"));
            cul_rms_norm_args.y(args, stream.out(y, "y"));
            cul_rms_norm_args.residual_out(args, stream.optionalOut(residualOut, "residual_out"));
            cul_rms_norm_args.eps(args, eps);
            cul_rms_norm_args.zero_centered(args, zeroCentered ? 1 : 0);
            while (stream.again(culebra_h.cul_rms_norm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = (x - mean) / sqrt(var + eps) * weight + bias}.
     *
     * @param x [T, D], half or f32; all of the others are as x
     * @param weight [D]
     * @param bias [D]; null: none
     * @param y [T, D]; may be x
     */
    public static void layerNorm(Stream stream, Tensor x, Tensor weight, @Nullable Tensor bias, Tensor y, float eps) {
        var args = stream.begin("layer_norm", cul_layer_norm_args.sizeof());
        try {
            cul_layer_norm_args.x(args, stream.in(x, "x"));
            cul_layer_norm_args.weight(args, stream.in(weight, "weight"));
            cul_layer_norm_args.bias(args, stream.optional(bias, "bias"));
            cul_layer_norm_args.y(args, stream.out(y, "y"));
            cul_layer_norm_args.eps(args, eps);
            while (stream.again(culebra_h.cul_layer_norm(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Rotary embedding: the first R channels turn in pairs (i, i + R/2) or, interleaved, (2i, 2i+1); the others are
     * copied. Su et al., <a href="https://arxiv.org/abs/2104.09864">arXiv:2104.09864</a>.
     *
     * @param x [T, H, D], half or f32
     * @param cos f32 [P, R/2], the cosines of P positions; scaling of frequencies and magnitude lives here
     * @param sin f32 [P, R/2]
     * @param positions i64 [T], rows of the tables
     * @param y as x; may be x
     */
    public static void rope(
            Stream stream,
            Tensor x,
            Tensor cos,
            Tensor sin,
            Tensor positions,
            Tensor y,
            boolean interleaved) {
        var args = stream.begin("rope", cul_rope_args.sizeof());
        try {
            cul_rope_args.x(args, stream.in(x, "x"));
            cul_rope_args.cos(args, stream.in(cos, "cos"));
            cul_rope_args.sin(args, stream.in(sin, "sin"));
            cul_rope_args.positions(args, stream.in(positions, "positions"));
            cul_rope_args.y(args, stream.out(y, "y"));
            cul_rope_args.interleaved(args, interleaved ? 1 : 0);
            while (stream.again(culebra_h.cul_rope(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = silu(gate) * up}.
     *
     * @param gate [T, I], half or f32; the others are as gate
     * @param up [T, I]
     * @param y [T, I]; may be gate or up
     */
    public static void siluMul(Stream stream, Tensor gate, Tensor up, Tensor y) {
        var args = stream.begin("silu_mul", cul_silu_mul_args.sizeof());
        try {
            cul_silu_mul_args.gate(args, stream.in(gate, "gate"));
            cul_silu_mul_args.up(args, stream.in(up, "up"));
            cul_silu_mul_args.y(args, stream.out(y, "y"));
            while (stream.again(culebra_h.cul_silu_mul(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = gelu(gate) * up}.
     *
     * @param gate [T, I], half or f32; the others are as gate
     * @param up [T, I]
     * @param y [T, I]; may be gate or up
     * @param form the exact or the approximate form
     */
    public static void geluMul(Stream stream, Tensor gate, Tensor up, Tensor y, Gelu form) {
        var args = stream.begin("gelu_mul", cul_gelu_mul_args.sizeof());
        try {
            cul_gelu_mul_args.gate(args, stream.in(gate, "gate"));
            cul_gelu_mul_args.up(args, stream.in(up, "up"));
            cul_gelu_mul_args.y(args, stream.out(y, "y"));
            cul_gelu_mul_args.form(args, form.ordinal());
            while (stream.again(culebra_h.cul_gelu_mul(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = x * sigmoid(gate)}.
     *
     * @param x [T, I], half or f32; the others are as x
     * @param gate [T, I], or [T, 1] for one gate a row
     * @param y [T, I]; may be x
     */
    public static void sigmoidMul(Stream stream, Tensor x, Tensor gate, Tensor y) {
        var args = stream.begin("sigmoid_mul", cul_sigmoid_mul_args.sizeof());
        try {
            cul_sigmoid_mul_args.x(args, stream.in(x, "x"));
            cul_sigmoid_mul_args.gate(args, stream.in(gate, "gate"));
            cul_sigmoid_mul_args.y(args, stream.out(y, "y"));
            while (stream.again(culebra_h.cul_sigmoid_mul(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = exp(x - max) / sum} over the last dimension. -inf gives 0; a row of nothing else gives NaN.
     *
     * @param x [T, N], half or f32
     * @param y as x
     */
    public static void softmax(Stream stream, Tensor x, Tensor y) {
        var args = stream.begin("softmax", cul_softmax_args.sizeof());
        try {
            cul_softmax_args.x(args, stream.in(x, "x"));
            cul_softmax_args.y(args, stream.out(y, "y"));
            while (stream.again(culebra_h.cul_softmax(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y[t] = table[ids[t]]}; id -1 gives zeros, and so does any other id outside the table, which is a
     * {@link DeviceFailedException} where {@code -Dculebra.check=true}.
     *
     * @param table [V, D], half or f32
     * @param ids i32 or i64 [T]
     * @param y [T, D] as table
     */
    public static void embedding(Stream stream, Tensor table, Tensor ids, Tensor y) {
        var args = stream.begin("embedding", cul_embedding_args.sizeof());
        try {
            cul_embedding_args.table(args, stream.in(table, "table"));
            cul_embedding_args.ids(args, stream.in(ids, "ids"));
            cul_embedding_args.y(args, stream.out(y, "y"));
            while (stream.again(culebra_h.cul_embedding(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code ids[t]} = the lowest index of the largest element of {@code x[t]}; NaN counts as larger than every number.
     *
     * @param x [T, N], N > 0, half or f32
     * @param ids i32 [T]
     */
    public static void argmax(Stream stream, Tensor x, Tensor ids) {
        var args = stream.begin("argmax", cul_argmax_args.sizeof());
        try {
            cul_argmax_args.x(args, stream.in(x, "x"));
            cul_argmax_args.ids(args, stream.out(ids, "ids"));
            while (stream.again(culebra_h.cul_argmax(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = a + b}, element by element; any strides, 0 in an input repeats an element.
     *
     * @param a f32, half, i32 or i64, rank up to 6; the others have its shape and type
     * @param b as a
     * @param y as a
     */
    public static void add(Stream stream, Tensor a, Tensor b, Tensor y) {
        var args = stream.begin("add", cul_add_args.sizeof());
        try {
            cul_add_args.a(args, stream.in(a, "a"));
            cul_add_args.b(args, stream.in(b, "b"));
            cul_add_args.y(args, stream.out(y, "y"));
            while (stream.again(culebra_h.cul_add(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = x * factor}, computed in f32 and rounded once; any strides.
     *
     * @param x half or f32, rank up to 6
     * @param y as x
     */
    public static void scale(Stream stream, Tensor x, Tensor y, float factor) {
        var args = stream.begin("scale", cul_scale_args.sizeof());
        try {
            cul_scale_args.x(args, stream.in(x, "x"));
            cul_scale_args.y(args, stream.out(y, "y"));
            cul_scale_args.factor(args, factor);
            while (stream.again(culebra_h.cul_scale(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = x} in y's type; any strides. To a float type: nearest, ties to even; f8e4m3 saturates at 448. From
     * float to integer: truncated, saturating, NaN gives 0.
     *
     * @param x any type, rank up to 6
     * @param y of x's shape, any type
     */
    public static void cast(Stream stream, Tensor x, Tensor y) {
        var args = stream.begin("cast", cul_cast_args.sizeof());
        try {
            cul_cast_args.x(args, stream.in(x, "x"));
            cul_cast_args.y(args, stream.out(y, "y"));
            while (stream.again(culebra_h.cul_cast(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * {@code y = x} bit for bit; any strides.
     *
     * @param x any type, rank up to 6
     * @param y of x's shape and type
     */
    public static void copyStrided(Stream stream, Tensor x, Tensor y) {
        var args = stream.begin("copy_strided", cul_copy_strided_args.sizeof());
        try {
            cul_copy_strided_args.x(args, stream.in(x, "x"));
            cul_copy_strided_args.y(args, stream.out(y, "y"));
            while (stream.again(culebra_h.cul_copy_strided(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }

    /**
     * Draws one token a row: softmax of {@code logits / temperature}, cut to the top_k largest, then to the smallest
     * set of largest ones that hold top_p of what is left, then to those of at least min_p times the largest; renormalised; drawn by inverse
     * transform, in descending order, with one number of Philox4x32-10. A row depends on its own seed and position
     * alone, never on the batch.
     *
     * @param logits [B, V], half or f32
     * @param temperature f32 [B]; 0 takes the argmax
     * @param topK i32 [B]; 0 = all
     * @param topP f32 [B]; 1 = all
     * @param minP f32 [B]; 0 = all
     * @param seed i64 [B]
     * @param position i64 [B]
     * @param ids i32 [B]
     * @param logprob f32 [B], log of the softmax of the raw logits at the drawn id; null: not wanted
     */
    public static void sample(
            Stream stream,
            Tensor logits,
            Tensor temperature,
            Tensor topK,
            Tensor topP,
            Tensor minP,
            Tensor seed,
            Tensor position,
            Tensor ids,
            @Nullable Tensor logprob) {
        var args = stream.begin("sample", cul_sample_args.sizeof());
        try {
            cul_sample_args.logits(args, stream.in(logits, "logits"));
            cul_sample_args.temperature(args, stream.in(temperature, "temperature"));
            cul_sample_args.top_k(args, stream.in(topK, "top_k"));
            cul_sample_args.top_p(args, stream.in(topP, "top_p"));
            cul_sample_args.min_p(args, stream.in(minP, "min_p"));
            cul_sample_args.seed(args, stream.in(seed, "seed"));
            cul_sample_args.position(args, stream.in(position, "position"));
            cul_sample_args.ids(args, stream.out(ids, "ids"));
            cul_sample_args.logprob(args, stream.optionalOut(logprob, "logprob"));
            while (stream.again(culebra_h.cul_sample(stream.handle(), args))) {}
        } finally {
            stream.end();
        }
    }
}
