package dev.culebra.oracles;

import dev.culebra.SparseLinearOptions.Mode;
import dev.culebra.SparseLinearOptions.Phi;
import java.util.Comparator;
import java.util.stream.IntStream;

/** Softmax over critical blocks, linear attention over others, by the products of mean queries and keys. */
final class SparseLinearAttentionOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var attributes = p.attributes();
        var block = attributes.integer("block", 64);
        var criticalShare = attributes.real("critical", 0.05);
        var negligibleShare = attributes.real("negligible", 0.10);
        var phi = attributes.oneOf("phi", Phi.SOFTMAX);
        var mode = attributes.oneOf("mode", Mode.PAPER);
        var eps = attributes.number("eps", 1e-5);
        var length = p.size("q", 2);
        var width = p.size("q", 3);
        var attention = SoftmaxAttention.of(attributes, width, false);
        var blocks = Math.ceilDiv(length, block);
        var critical = (int) Math.max(1, Math.floor(criticalShare * blocks));
        var negligible = Math.min((int) Math.floor(negligibleShare * blocks), blocks - critical);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        var o = new double[q.length];
        for (var base = 0; base < q.length; base += length * width) {
            var first = base;
            for (var i = 0; i < blocks; i++) {
                var queryMean = mean(q, first, i * block, Math.min((i + 1) * block, length), width);
                var scores = IntStream.range(0, blocks).mapToDouble(j -> {
                    var keyMean = mean(k, first, j * block, Math.min((j + 1) * block, length), width);
                    return attention.scale() * IntStream.range(0, width).mapToDouble(c -> queryMean[c] * keyMean[c]).sum();
                }).toArray();
                var order = IntStream.range(0, blocks).boxed()
                        .sorted(Comparator.<Integer>comparingDouble(j -> -scores[j]).thenComparing(j -> j)).toList();
                var exact = keys(order.subList(0, critical).stream().mapToInt(j -> j).toArray(), block, length);
                var inLinear = switch (mode) {
                    case PAPER -> order.subList(critical, blocks - negligible);
                    case COMPLEMENT -> order.subList(critical, blocks);
                    case ALL -> order;
                };
                var linear = keys(inLinear.stream().mapToInt(j -> j).toArray(), block, length);
                for (var t = i * block; t < Math.min((i + 1) * block, length); t++) {
                    var at = first + t * width;
                    attention.attend(q, at, k, j -> first + exact[j] * width, v, j -> first + exact[j] * width, exact.length, length,
                            Double.NEGATIVE_INFINITY, width, width, o, at);
                    project(p, linear(q, at, k, v, first, linear, width, phi, eps), o, at, width);
                }
            }
        }
        p.out("o", o, p.shape("q"));
    }

    private static double[] mean(double[] x, int base, int begin, int end, int width) {
        var mean = new double[width];
        for (var t = begin; t < end; t++) {
            for (var c = 0; c < width; c++) {
                mean[c] += x[base + t * width + c] / (end - begin);
            }
        }
        return mean;
    }

    private static int[] keys(int[] blocks, int block, int length) {
        return IntStream.of(blocks).flatMap(j -> IntStream.range(j * block, Math.min((j + 1) * block, length))).toArray();
    }

    private static double[] linear(double[] q, int at, double[] k, double[] v, int base, int[] keys, int width, Phi phi, double eps) {
        var query = map(q, at, width, phi);
        var sum = new double[width];
        var norm = eps;
        for (var j : keys) {
            var key = map(k, base + j * width, width, phi);
            var product = IntStream.range(0, width).mapToDouble(c -> query[c] * key[c]).sum();
            norm += product;
            for (var c = 0; c < width; c++) {
                sum[c] += product * v[base + j * width + c];
            }
        }
        for (var c = 0; c < width && keys.length > 0; c++) {
            sum[c] /= norm;
        }
        return sum;
    }

    private static double[] map(double[] x, int at, int width, Phi phi) {
        var mapped = new double[width];
        var max = IntStream.range(0, width).mapToDouble(c -> x[at + c]).max().orElse(0);
        var sum = 0.0;
        for (var c = 0; c < width; c++) {
            var value = x[at + c];
            mapped[c] = switch (phi) {
                case SOFTMAX -> Math.exp(value - max);
                case ELU1 -> value > 0 ? value + 1 : Math.exp(value);
                case RELU -> Math.max(value, 0);
            };
            sum += mapped[c];
        }
        for (var c = 0; c < width && phi == Phi.SOFTMAX; c++) {
            mapped[c] /= sum;
        }
        return mapped;
    }

    private static void project(Problem p, double[] linear, double[] o, int at, int width) {
        var weights = p.has("proj_w") ? p.values("proj_w") : null;
        var bias = p.values("proj_b", width, 0);
        for (var c = 0; c < width; c++) {
            if (weights == null) {
                o[at + c] += linear[c];
                continue;
            }
            o[at + c] += bias[c];
            for (var i = 0; i < width; i++) {
                o[at + c] += weights[c * width + i] * linear[i];
            }
        }
    }
}
