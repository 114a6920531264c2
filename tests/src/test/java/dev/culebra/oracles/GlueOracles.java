package dev.culebra.oracles;

import dev.culebra.DType;
import dev.culebra.Gelu;
import java.util.Map;
import java.util.function.DoubleBinaryOperator;

/** The small operators between the matrix products. */
final class GlueOracles {
    private GlueOracles() {}

    static void register(Map<String, Oracle> all) {
        all.put("rms_norm", GlueOracles::rmsNorm);
        all.put("layer_norm", GlueOracles::layerNorm);
        all.put("rope", GlueOracles::rope);
        all.put("silu_mul", p -> combine(p, "gate", "up", (gate, up) -> Functions.silu(gate) * up));
        all.put("gelu_mul", p -> {
            var tanh = p.attributes().oneOf("form", Gelu.ERF) == Gelu.TANH;
            combine(p, "gate", "up", (gate, up) -> (tanh ? Functions.geluTanh(gate) : Functions.gelu(gate)) * up);
        });
        all.put("sigmoid_mul", GlueOracles::sigmoidMul);
        all.put("add", p -> combine(p, "a", "b", Double::sum));
        all.put("scale", p -> {
            var factor = p.attributes().number("factor", 1);
            combine(p, "x", "x", (x, same) -> x * factor);
        });
        all.put("cast", p -> p.out("y", p.attributes().oneOf("dtype", p.in("x").dtype()), p.values("x"), p.shape("x")));
        all.put("copy_strided", p -> p.outputs().put("y", p.in("x")));
        all.put("softmax", GlueOracles::softmax);
        all.put("embedding", GlueOracles::embedding);
        all.put("argmax", GlueOracles::argmax);
    }

    private static void combine(Problem p, String first, String second, DoubleBinaryOperator operator) {
        var a = p.values(first);
        var b = p.values(second);
        var y = new double[a.length];
        for (var i = 0; i < y.length; i++) {
            y[i] = operator.applyAsDouble(a[i], b[i]);
        }
        p.out("y", p.in(first).dtype().isFloat() ? DType.F32 : p.in(first).dtype(), y, p.shape(first));
    }

    private static void rmsNorm(Problem p) {
        var width = p.size("x", 1);
        var h = p.values("x");
        if (p.has("residual")) {
            var residual = p.values("residual");
            for (var i = 0; i < h.length; i++) {
                h[i] += residual[i];
            }
            p.out("residual", h, p.shape("x"));
        }
        var weight = p.values("weight");
        var offset = p.attributes().flag("zero_centered", false) ? 1 : 0;
        var eps = p.attributes().number("eps", 1e-6);
        var y = new double[h.length];
        for (var row = 0; row < h.length; row += width) {
            var sum = 0.0;
            for (var i = 0; i < width; i++) {
                sum += h[row + i] * h[row + i];
            }
            var factor = 1 / Math.sqrt(sum / width + eps);
            for (var i = 0; i < width; i++) {
                y[row + i] = h[row + i] * factor * (offset + weight[i]);
            }
        }
        p.out("y", y, p.shape("x"));
    }

    private static void layerNorm(Problem p) {
        var width = p.size("x", 1);
        var x = p.values("x");
        var weight = p.values("weight");
        var bias = p.values("bias", width, 0);
        var eps = p.attributes().number("eps", 1e-5);
        var y = new double[x.length];
        for (var row = 0; row < x.length; row += width) {
            var mean = 0.0;
            for (var i = 0; i < width; i++) {
                mean += x[row + i] / width;
            }
            var variance = 0.0;
            for (var i = 0; i < width; i++) {
                variance += (x[row + i] - mean) * (x[row + i] - mean) / width;
            }
            for (var i = 0; i < width; i++) {
                y[row + i] = (x[row + i] - mean) / Math.sqrt(variance + eps) * weight[i] + bias[i];
            }
        }
        p.out("y", y, p.shape("x"));
    }

    private static void rope(Problem p) {
        var tokens = p.size("x", 0);
        var heads = p.size("x", 1);
        var width = p.size("x", 2);
        var y = p.values("x");
        var positions = p.ints("positions");
        var pairs = p.size("cos", 1);
        var interleaved = p.attributes().flag("interleaved", false);
        var cos = p.values("cos");
        var sin = p.values("sin");
        for (var t = 0; t < tokens; t++) {
            for (var head = 0; head < heads; head++) {
                rotate(y, (t * heads + head) * width, pairs, cos, sin, positions[t] * pairs, interleaved);
            }
        }
        p.out("y", y, p.shape("x"));
    }

    /** Turns the first {@code 2 pairs} channels at {@code base}. */
    static void rotate(double[] x, int base, int pairs, double[] cos, double[] sin, int table, boolean interleaved) {
        for (var i = 0; i < pairs; i++) {
            var first = base + (interleaved ? 2 * i : i);
            var second = base + (interleaved ? 2 * i + 1 : i + pairs);
            var a = x[first];
            var b = x[second];
            x[first] = a * cos[table + i] - b * sin[table + i];
            x[second] = b * cos[table + i] + a * sin[table + i];
        }
    }

    private static void sigmoidMul(Problem p) {
        var width = p.size("x", 1);
        var gates = p.size("gate", 1);
        var gate = p.values("gate");
        var y = p.values("x");
        for (var i = 0; i < y.length; i++) {
            y[i] *= Functions.sigmoid(gate[gates == width ? i : i / width]);
        }
        p.out("y", y, p.shape("x"));
    }

    private static void softmax(Problem p) {
        var width = p.size("x", 1);
        var y = p.values("x");
        for (var row = 0; row < y.length; row += width) {
            var max = Double.NEGATIVE_INFINITY;
            for (var i = 0; i < width; i++) {
                max = Math.max(max, y[row + i]);
            }
            var sum = 0.0;
            for (var i = 0; i < width; i++) {
                y[row + i] = Math.exp(y[row + i] - max);
                sum += y[row + i];
            }
            for (var i = 0; i < width; i++) {
                y[row + i] /= sum;
            }
        }
        p.out("y", y, p.shape("x"));
    }

    private static void embedding(Problem p) {
        var width = p.size("table", 1);
        var table = p.values("table");
        var ids = p.ints("ids");
        var y = new double[ids.length * width];
        for (var t = 0; t < ids.length; t++) {
            if (ids[t] >= 0) {
                System.arraycopy(table, ids[t] * width, y, t * width, width);
            }
        }
        p.out("y", y, ids.length, width);
    }

    private static void argmax(Problem p) {
        var rows = p.size("x", 0);
        var width = p.size("x", 1);
        var x = p.values("x");
        var ids = new int[rows];
        for (var row = 0; row < rows; row++) {
            for (var i = 1; i < width; i++) {
                if (x[row * width + i] > x[row * width + ids[row]]) {
                    ids[row] = i;
                }
            }
        }
        p.out("ids", ids, rows);
    }
}
