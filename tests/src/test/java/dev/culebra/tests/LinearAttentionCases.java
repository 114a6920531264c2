package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.LinearAttentionOptions.FeatureMap;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** Linear attention: packed and empty sequences, pools with padding, every option. */
final class LinearAttentionCases {
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};

    private LinearAttentionCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 9; i++) {
            var dtype = DTYPES[(i + i / 3) % 3];
            for (var op : List.of("simple_gla", "gated_linear_attention", "delta_rule", "gated_delta_rule", "kda")) {
                cases.add(recurrence(op, seed + i, i, dtype));
            }
            cases.add(linearAttention(seed + i, i, dtype));
            cases.add(mlstm(seed + i, i, dtype));
            cases.add(mixtureOfMemories(seed + i, i, dtype));
            cases.add(localLinearAttention(seed + i, i, dtype));
            cases.add(causalConv1d(seed + i, i, DTYPES[i % 3]));
            cases.add(convFft(seed + i, i, dtype));
            cases.add(gatedRmsNorm(seed + i, i, DTYPES[i % 3]));
        }
        return cases;
    }

    /** [B, T], or B = 1 and packed sequences of these lengths; then pool rows, -1 for padding. Returns the tokens. */
    private static int[] tokens(CaseBuilder builder, int i) {
        if (i % 3 == 0) {
            return new int[] {2, i == 0 ? 0 : 5 + i};
        }
        if (i % 3 == 1) {
            builder.in("cu_seqlens", HostTensor.of(DType.I32, new long[] {5}, 0, 0, 1, 8, 8 + 7 * i));
            return new int[] {1, 8 + 7 * i};
        }
        builder.in("state_read_index", HostTensor.of(DType.I32, new long[] {3}, 4, -1, 2));
        builder.in("state_write_index", HostTensor.of(DType.I32, new long[] {3}, 4, -1, 0));
        return new int[] {3, 1 + i % 4};
    }

    private static int states(int i) {
        return new int[] {2, 4, 6}[i % 3];
    }

    /** Lengths around those of chunks and tiles. */
    private static final int[] LENGTHS = {1, 2, 15, 16, 17, 63, 64, 65, 127};

    /** As {@link #tokens}, with the i-th length. Returns B and T. */
    private static int[] sequences(CaseBuilder builder, int i) {
        var length = LENGTHS[i];
        if (i % 3 == 0) {
            return new int[] {2, length};
        }
        if (i % 3 == 1) {
            builder.in("cu_seqlens", HostTensor.of(DType.I32, new long[] {5}, 0, 0, 1, 1 + length, 3 + length));
            return new int[] {1, 3 + length};
        }
        builder.in("state_read_index", HostTensor.of(DType.I32, new long[] {3}, 4, -1, 2));
        builder.in("state_write_index", HostTensor.of(DType.I32, new long[] {3}, 4, -1, 0));
        return new int[] {3, length};
    }

    /** Keys as models have them, and such as make a state's matrix products badly conditioned. */
    private enum Keys {
        UNIT,
        IDENTICAL,
        POSITIVE,
        ZERO,
        ANY;

        boolean adversarial() {
            return this == IDENTICAL || this == POSITIVE;
        }
    }

    private static void keys(CaseBuilder builder, Keys kind, DType dtype, int width, long... shape) {
        var rows = Math.toIntExact(HostTensor.elements(shape)) / width;
        var tensor = HostTensor.zeros(dtype, shape);
        var row = new double[width];
        for (var r = 0; r < rows; r++) {
            var sum = 0.0;
            for (var c = 0; c < width && (r == 0 || kind != Keys.IDENTICAL); c++) {
                row[c] = builder.random.nextGaussian();
                row[c] = kind == Keys.POSITIVE ? Math.abs(row[c]) : row[c];
            }
            for (var value : row) {
                sum += value * value;
            }
            for (var c = 0; c < width; c++) {
                tensor.set((long) r * width + c, switch (kind) {
                    case ZERO -> 0;
                    case ANY -> row[c];
                    default -> row[c] / Math.sqrt(sum);
                });
            }
        }
        builder.in("k", tensor);
    }

    /** The contract's bounds for inputs that were made to hurt. */
    private static CaseBuilder adversarial(CaseBuilder builder, DType dtype, String... outputs) {
        for (var output : outputs) {
            builder.check(output, Metric.RMS_RATIO, dtype == DType.F32 ? 1e-4 : dtype == DType.F16 ? 1e-2 : 2e-2);
        }
        return builder;
    }

    private static final double[] HARD_GATES = {0, -5, -30, -1000, -0.1};
    private static final double[] HARD_BETAS = {0, 1, 2, 0.5};

    private static Case recurrence(String op, long seed, int i, DType dtype) {
        var builder = new CaseBuilder(op, seed, dtype, i);
        var shape = sequences(builder, i);
        var heads = 1 + i % 2;
        var valueHeads = heads * (1 + i % 3);
        var keys = i == 4 ? 128 : new int[] {16, 32, 24}[i % 3];
        var values = i == 7 ? 64 : new int[] {24, 40, 8}[i % 3];
        var delta = op.endsWith("delta_rule") || op.equals("kda");
        var kind = delta ? Keys.values()[i % 5] : Keys.ANY;
        var vk = i % 4 < 2;
        var hard = i % 4 == 2;
        builder.normal("q", dtype, 1, shape[0], shape[1], heads, keys)
                .normal("v", dtype, 1, shape[0], shape[1], valueHeads, values)
                .attribute("state_layout", vk ? "vk" : "kv")
                .normal("initial_state", DType.F32, 1, states(i), valueHeads, vk ? values : keys, vk ? keys : values);
        keys(builder, kind, dtype, keys, shape[0], shape[1], heads, keys);
        if (delta) {
            builder.choice("beta", DType.F32, HARD_BETAS, shape[0], shape[1], valueHeads)
                    .attribute("qk_l2norm", kind == Keys.ANY || i % 3 == 2);
        }
        gates(builder, op, i, hard, dtype, shape, valueHeads, keys);
        if (i == 1 || i == 7) {
            builder.attribute("checkpoint_every", i == 1 ? 1 : 64).attribute("scale", 0.5);
        }
        if (i == 1) {
            builder.attribute("batch_invariant", true);
        }
        return (hard || kind.adversarial() ? adversarial(builder, dtype, "o", "final_state") : builder).build(dtype);
    }

    private static void gates(CaseBuilder builder, String op, int i, boolean hard, DType dtype, int[] shape, int valueHeads, int keys) {
        var channel = op.equals("kda") || op.equals("gated_linear_attention");
        var extents = channel ? new long[] {shape[0], shape[1], valueHeads, keys} : new long[] {shape[0], shape[1], valueHeads};
        if (op.equals("delta_rule")) {
            return;
        }
        if (op.equals("simple_gla") && i % 3 == 1) {
            builder.uniform("g_head", DType.F32, -1, 0, valueHeads);
        } else if ((op.equals("kda") || op.startsWith("gated_delta")) && i % 2 == 1) {
            builder.attribute("gate_mode", op.equals("kda") && i % 4 == 1 ? "lower_bound" : "softplus")
                    .normal("a", dtype, 1, extents)
                    .uniform("A_log", DType.F32, -1, 1, valueHeads)
                    .normal("dt_bias", DType.F32, 1, channel ? new long[] {valueHeads, keys} : new long[] {valueHeads});
            if (op.equals("kda") && i == 5) {
                builder.attribute("lower_bound", -3.5);
            }
        } else if (hard) {
            builder.choice("g", DType.F32, HARD_GATES, extents);
        } else {
            builder.uniform("g", DType.F32, -3, 0, extents);
        }
    }

    private static final FeatureMap[] MAPS = FeatureMap.values();

    private static Case linearAttention(long seed, int i, DType dtype) {
        var builder = new CaseBuilder("linear_attention", seed, dtype, i);
        var shape = sequences(builder, i);
        var heads = 1 + i % 2;
        var valueHeads = heads * (1 + i % 2);
        var map = MAPS[i % MAPS.length];
        var keys = map == FeatureMap.TAYLOR2 ? 8 : i == 8 ? 136 : 16;
        var values = new int[] {24, 40, 8}[i % 3];
        var vk = i % 4 < 2;
        var width = map.width(keys);
        // Where features are positive; without, a normaliser passes through 0 and nothing bounds the result.
        var normalize = map != FeatureMap.NONE;
        builder.normal("q", dtype, 1, shape[0], shape[1], heads, keys)
                .normal("k", dtype, 1, shape[0], shape[1], heads, keys)
                .normal("v", dtype, 1, shape[0], shape[1], valueHeads, values)
                .attribute("feature_map", map.name().toLowerCase(Locale.ROOT))
                .attribute("normalize", normalize)
                .attribute("causal", i % 4 != 3)
                .attribute("state_layout", vk ? "vk" : "kv")
                .normal("initial_state", DType.F32, 1, states(i), valueHeads, vk ? values : width, vk ? width : values);
        if (normalize) {
            builder.uniform("z_state", DType.F32, 1, 2, states(i), heads, width).attribute("eps", 1e-3);
        }
        if (i == 7) {
            builder.attribute("checkpoint_every", 64).attribute("scale", 0.5);
        }
        return builder.build(dtype);
    }

    private static Case mlstm(long seed, int i, DType dtype) {
        var builder = new CaseBuilder("mlstm", seed, dtype, i);
        var shape = sequences(builder, i);
        var heads = 1 + i % 2;
        var keys = i > 6 ? 136 : new int[] {16, 32, 24}[i % 3];
        var values = i == 1 ? 264 : new int[] {24, 40, 8}[i % 3];
        var vk = i % 4 < 2;
        var exponential = i % 3 != 1;
        var normalize = exponential || i % 2 == 0;
        builder.normal("q", dtype, 1, shape[0], shape[1], heads, keys)
                .normal("k", dtype, 1, shape[0], shape[1], heads, keys)
                .normal("v", dtype, 1, shape[0], shape[1], heads, values)
                .normal("i", DType.F32, i % 4 == 3 ? 30 : 2, shape[0], shape[1], heads)
                .normal("f", DType.F32, i % 4 == 3 ? 30 : 2, shape[0], shape[1], heads)
                .attribute("input_gate", exponential ? "exp" : "sigmoid")
                .attribute("normalize", normalize)
                .attribute("state_layout", vk ? "vk" : "kv")
                .normal("initial_state", DType.F32, 1, states(i), heads, vk ? values : keys, vk ? keys : values);
        if (normalize) {
            builder.normal("n_state", DType.F32, 1, states(i), heads, keys);
        }
        if (exponential) {
            builder.normal("m_state", DType.F32, 2, states(i), heads).attribute("soft_cap", i % 2 == 0 ? 15 : 0);
        }
        if (i == 7) {
            builder.attribute("checkpoint_every", 64).attribute("scale", 0.5);
        }
        return (i % 4 == 3 ? adversarial(builder, dtype, "o", "final_state", "final_n_state") : builder).build(dtype);
    }

    private static Case mixtureOfMemories(long seed, int i, DType dtype) {
        var builder = new CaseBuilder("mixture_of_memories", seed, dtype, i);
        var shape = sequences(builder, i);
        var slots = 1 + i % 3;
        var memories = 3 + i % 2;
        var heads = 1 + i % 2;
        var valueHeads = heads * (1 + i % 3 / 2);
        var keys = 16;
        var values = new int[] {24, 8, 16}[i % 3];
        var vk = i % 4 < 2;
        var tokens = new long[] {shape[0], shape[1]};
        var own = i % 2 == 1 ? new long[] {shape[0], shape[1], slots} : tokens;
        builder.normal("q", dtype, 1, extents(own, heads, keys))
                .normal("v", dtype, 1, extents(own, valueHeads, values))
                .uniform("beta", DType.F32, 0, 1, extents(own, valueHeads))
                .uniform("weights", DType.F32, 0, 1, extents(tokens, slots))
                .attribute("qk_l2norm", i % 4 == 2)
                .attribute("state_layout", vk ? "vk" : "kv")
                .normal("initial_state", DType.F32, 1, states(i), memories, valueHeads, vk ? values : keys, vk ? keys : values);
        keys(builder, Keys.UNIT, dtype, keys, extents(own, heads, keys));
        var ids = HostTensor.zeros(DType.I32, extents(tokens, slots));
        for (var t = 0L; t < ids.elements() / slots; t++) {
            var first = builder.random.nextInt(memories);
            for (var j = 0; j < slots; j++) {
                ids.set(t * slots + j, builder.random.nextInt(5) == 0 ? -1 : (first + j) % memories);
            }
        }
        builder.in("ids", ids);
        if (i % 3 == 2) {
            builder.attribute("gate_mode", "softplus")
                    .normal("a", dtype, 1, extents(own, valueHeads))
                    .uniform("A_log", DType.F32, -1, 1, valueHeads)
                    .normal("dt_bias", DType.F32, 1, valueHeads);
        } else {
            builder.uniform("g", DType.F32, -3, 0, extents(own, valueHeads));
        }
        if (i == 7) {
            builder.attribute("checkpoint_every", 64).attribute("scale", 0.5);
        }
        return builder.build(dtype);
    }

    private static long[] extents(long[] before, long... after) {
        var all = Arrays.copyOf(before, before.length + after.length);
        System.arraycopy(after, 0, all, before.length, after.length);
        return all;
    }

    private static Case localLinearAttention(long seed, int i, DType dtype) {
        var builder = new CaseBuilder("local_linear_attention", seed, dtype, i);
        var heads = 1 + i % 2;
        var valueHeads = heads * (1 + i % 3);
        var keys = i == 8 ? 72 : new int[] {8, 16, 24}[i % 3];
        var values = new int[] {24, 8, 16}[i % 3];
        var batch = i % 3 == 1 ? 1 : 2;
        var queries = i % 3 == 1 ? 12 : 3 + i;
        var cached = i % 3 == 1 ? 40 : queries + 7 * (i % 4);
        if (i % 3 == 1) {
            builder.in("cu_seqlens", HostTensor.of(DType.I32, new long[] {4}, 0, 0, 1, 12));
            builder.in("cu_seqlens_k", HostTensor.of(DType.I32, new long[] {4}, 0, 5, 9, 40));
        }
        builder.normal("q", dtype, 1, batch, queries, heads, keys)
                .normal("k", dtype, 1, batch, cached, heads, keys)
                .normal("v", dtype, 1, batch, cached, valueHeads, values)
                .attribute("ridge_lambda", i % 2 == 0 ? 10.0 : 1.0)
                .attribute("cg_iters", 64)
                .attribute("tol", 1e-7);
        if (i % 4 == 3) {
            // At 1 a residual of tol would be an error of a hundredth.
            builder.attribute("scale", i == 7 ? 1.0 : 0.5);
        }
        return builder.check("o", Metric.RMS_RATIO, dtype == DType.F32 ? 1e-4 : CaseBuilder.bound(dtype)).build(dtype);
    }

    private static Case causalConv1d(long seed, int i, DType dtype) {
        var builder = new CaseBuilder("causal_conv1d", seed, dtype, i);
        var shape = tokens(builder, i);
        var channels = new int[] {1, 40, 75}[i % 3];
        var width = 2 + i % 3;
        builder.normal("x", dtype, 1, shape[0], shape[1], channels)
                .normal("w", dtype, 1, channels, width)
                .normal("state", dtype, 1, states(i), channels, width - 1)
                .attribute("act", i % 2 == 0 ? "silu" : "none")
                .check("final_state", Metric.MAX_ABS, 0);
        if (i % 2 == 0) {
            builder.normal("bias", dtype, 1, channels);
        }
        return builder.build(dtype);
    }

    /** B, T, C, L: tap by tap, one window, several, no tokens, a filter of no taps. */
    private static final int[][] CONVOLUTIONS = {{2, 300, 3, 300}, {1, 1, 9, 1}, {2, 0, 4, 0}, {3, 129, 5, 65}, {1, 1000, 2, 90},
        {2, 37, 33, 20}, {1, 257, 70, 256}, {0, 8, 4, 8}, {1, 20, 2, 0}};

    private static Case convFft(long seed, int i, DType dtype) {
        var size = CONVOLUTIONS[i];
        var builder = new CaseBuilder("conv_fft", seed, dtype, i)
                .normal("x", dtype, 1, size[0], size[1], size[2])
                .normal("filter", DType.F32, 1 / Math.sqrt(size[3] + 1), size[2], size[3]);
        if (i % 4 != 3) {
            builder.normal("skip", i % 2 == 0 ? DType.F32 : dtype, 1, size[2]);
        }
        return builder.build(dtype);
    }

    private static Case gatedRmsNorm(long seed, int i, DType dtype) {
        var width = 48 + 16 * i;
        var shape = switch (i) {
            case 4 -> new long[] {width};
            case 7 -> new long[] {2, 1, 3, 2, width};
            default -> i % 2 == 0 ? new long[] {1 + 5 * i, width} : new long[] {2, 3, i, width};
        };
        // Squares that f32 does not hold, in the type whose exponents reach as far.
        var builder = new CaseBuilder("gated_rms_norm", seed, dtype, i)
                .normal("x", dtype, dtype == DType.BF16 && i > 2 ? 1e25 : 1, shape)
                .normal("weight", i % 4 == 0 ? DType.F32 : dtype, 1, width)
                .attribute("eps", 1e-6)
                .attribute("act", i % 2 == 0 ? "silu" : "sigmoid")
                .attribute("norm_before_gate", i % 4 < 2)
                .attribute("groups", i % 3 == 0 ? 2 : 1);
        if (i % 5 != 4) {
            builder.normal("gate", dtype, 1, shape);
        }
        return builder.build(dtype);
    }
}
