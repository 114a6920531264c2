package dev.culebra.oracles;

/** Both convolutions of x with the state before it, then the means, norms, temperatures and rotations. */
final class CcaQkvOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var batch = p.size("x_q", 0);
        var tokens = p.size("x_q", 1);
        var width = p.size("conv2_w", 1);
        var heads = p.size("x_q", 2) / width;
        var keyHeads = p.size("x_k", 2) / width;
        var channels = (heads + keyHeads) * width;
        var group = heads / keyHeads;
        var x = inputs(p, batch, tokens, heads * width, keyHeads * width);
        var w1 = p.values("conv1_w");
        var b1 = p.values("conv1_b", channels, 0);
        var w2 = p.values("conv2_w");
        var b2 = p.values("conv2_b", channels, 0);
        var temp = p.values("temp");
        var q = new double[batch * tokens * heads * width];
        var k = new double[batch * tokens * keyHeads * width];
        for (var b = 0; b < batch; b++) {
            var y1 = new double[tokens + 1][channels];
            for (var t = -1; t < tokens; t++) {
                for (var c = 0; c < channels; c++) {
                    y1[t + 1][c] = b1[c] + w1[2 * c] * x[b][t + 1][c] + w1[2 * c + 1] * x[b][t + 2][c];
                }
            }
            for (var t = 0; t < tokens; t++) {
                for (var h = 0; h < heads + keyHeads; h++) {
                    var isQuery = h < heads;
                    var row = new double[width];
                    for (var i = 0; i < width; i++) {
                        var c = h * width + i;
                        row[i] = b2[c];
                        for (var j = 0; j < width; j++) {
                            row[i] += w2[(c * width + j) * 2] * y1[t][h * width + j]
                                    + w2[(c * width + j) * 2 + 1] * y1[t + 1][h * width + j];
                        }
                        var first = isQuery ? h : (h - heads) * group;
                        var members = isQuery ? 1 : group;
                        for (var g = first; g < first + members; g++) {
                            row[i] += (x[b][t + 2][g * width + i] + x[b][t + 2][(heads + g / group) * width + i]) / 2 / members;
                        }
                    }
                    var square = 0.0;
                    for (var value : row) {
                        square += value * value;
                    }
                    var factor = Math.sqrt(width) / Math.max(Math.sqrt(square), 1e-6) * (isQuery ? 1 : temp[h - heads]);
                    for (var i = 0; i < width; i++) {
                        row[i] *= factor;
                    }
                    if (p.has("cos")) {
                        var pairs = p.size("cos", 2);
                        GlueOracles.rotate(row, 0, pairs, p.values("cos"), p.values("sin"), (b * tokens + t) * pairs, false);
                    }
                    System.arraycopy(row, 0, isQuery ? q : k,
                            ((b * tokens + t) * (isQuery ? heads : keyHeads) + (isQuery ? h : h - heads)) * width, width);
                }
            }
        }
        p.out("q", q, batch, tokens, heads, width);
        p.out("k", k, batch, tokens, keyHeads, width);
        values(p, batch, tokens, keyHeads, width);
        var state = new double[batch * channels * 2];
        for (var i = 0; i < state.length; i++) {
            state[i] = x[i / 2 / channels][tokens + i % 2][i / 2 % channels];
        }
        p.out("conv_state", state, batch, channels, 2);
    }

    /** [B][T + 2][C]: the state's two tokens, then concat(x_q, x_k). */
    private static double[][][] inputs(Problem p, int batch, int tokens, int queryChannels, int keyChannels) {
        var channels = queryChannels + keyChannels;
        var x = new double[batch][tokens + 2][channels];
        var state = p.values("conv_state", batch * channels * 2, 0);
        var q = p.values("x_q");
        var k = p.values("x_k");
        for (var b = 0; b < batch; b++) {
            for (var c = 0; c < channels; c++) {
                x[b][0][c] = state[(b * channels + c) * 2];
                x[b][1][c] = state[(b * channels + c) * 2 + 1];
                for (var t = 0; t < tokens; t++) {
                    x[b][t + 2][c] = c < queryChannels ? q[(b * tokens + t) * queryChannels + c]
                            : k[(b * tokens + t) * keyChannels + c - queryChannels];
                }
            }
        }
        return x;
    }

    private static void values(Problem p, int batch, int tokens, int heads, int width) {
        var half = heads * width / 2;
        var own = p.values("x_v1");
        var late = p.values("x_v2");
        var before = p.values("v_state", batch * half, 0);
        var v = new double[batch * tokens * 2 * half];
        var state = before.clone();
        for (var b = 0; b < batch; b++) {
            for (var t = 0; t < tokens; t++) {
                var at = b * tokens + t;
                for (var c = 0; c < half; c++) {
                    v[at * 2 * half + c] = own[at * half + c];
                    v[at * 2 * half + half + c] = t == 0 ? before[b * half + c] : late[(at - 1) * half + c];
                    state[b * half + c] = late[at * half + c];
                }
            }
        }
        p.out("v", v, batch, tokens, heads, width);
        p.out("v_state", state, batch, half);
    }
}
