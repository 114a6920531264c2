package dev.culebra.oracles;

/** The formula as it stands, each query's system solved by elimination with pivots. */
final class LocalLinearAttentionOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var batch = p.size("q", 0);
        var queries = p.size("q", 1);
        var keys = p.size("k", 1);
        var packed = p.has("cu_seqlens");
        var cuQueries = packed ? p.ints("cu_seqlens") : null;
        var cuKeys = packed ? p.ints("cu_seqlens_k") : null;
        var o = new double[batch * queries * p.size("v", 2) * p.size("v", 3)];
        for (var n = 0; n < (packed ? cuQueries.length - 1 : batch); n++) {
            var query = packed ? cuQueries[n] : n * queries;
            var queryEnd = packed ? cuQueries[n + 1] : query + queries;
            var key = packed ? cuKeys[n] : n * keys;
            var keyEnd = packed ? cuKeys[n + 1] : key + keys;
            for (var t = query; t < queryEnd; t++) {
                solve(p, t, key, keyEnd - (queryEnd - t) + 1, o);
            }
        }
        p.out("o", o, batch, queries, p.size("v", 2), p.size("v", 3));
    }

    /** Query t sees keys [from, to). */
    private static void solve(Problem p, int t, int from, int to, double[] o) {
        var heads = p.size("q", 2);
        var width = p.size("q", 3);
        var valueHeads = p.size("v", 2);
        var values = p.size("v", 3);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        var scale = RecurrenceOracle.scale(p, width);
        for (var head = 0; head < heads; head++) {
            var sigma = new double[width][width + 1]; // mu as its last column
            var z = new double[to - from][width];
            var w = new double[to - from];
            var omega = 0.0;
            for (var j = from; j < to; j++) {
                var score = 0.0;
                for (var i = 0; i < width; i++) {
                    var key = k[(j * heads + head) * width + i];
                    z[j - from][i] = key - q[(t * heads + head) * width + i];
                    score += key * q[(t * heads + head) * width + i];
                }
                w[j - from] = Math.exp(scale * score);
                omega += w[j - from];
                for (var i = 0; i < width; i++) {
                    sigma[i][width] += w[j - from] * z[j - from][i];
                    for (var c = 0; c < width; c++) {
                        sigma[i][c] += w[j - from] * z[j - from][i] * z[j - from][c];
                    }
                }
            }
            var mu = new double[width];
            for (var i = 0; i < width; i++) {
                mu[i] = sigma[i][width];
                sigma[i][i] += p.attributes().number("ridge_lambda", 10);
            }
            var rho = eliminate(sigma);
            var divisor = omega - dot(mu, rho);
            for (var h = head * (valueHeads / heads); h < (head + 1) * (valueHeads / heads); h++) {
                for (var j = from; j < to; j++) {
                    var weight = w[j - from] * (1 - dot(z[j - from], rho)) / divisor;
                    for (var i = 0; i < values; i++) {
                        o[(t * valueHeads + h) * values + i] += weight * v[(j * valueHeads + h) * values + i];
                    }
                }
            }
        }
    }

    private static double dot(double[] a, double[] b) {
        var sum = 0.0;
        for (var i = 0; i < a.length; i++) {
            sum += a[i] * b[i];
        }
        return sum;
    }

    /** The x with {@code a x = b}, b the last column of {@code ab}. */
    private static double[] eliminate(double[][] ab) {
        var n = ab.length;
        for (var c = 0; c < n; c++) {
            var pivot = c;
            for (var r = c + 1; r < n; r++) {
                pivot = Math.abs(ab[r][c]) > Math.abs(ab[pivot][c]) ? r : pivot;
            }
            var row = ab[pivot];
            ab[pivot] = ab[c];
            ab[c] = row;
            for (var r = 0; r < n; r++) {
                var factor = r == c ? 0 : ab[r][c] / row[c];
                for (var i = c; i <= n && factor != 0; i++) {
                    ab[r][i] -= factor * row[i];
                }
            }
        }
        var x = new double[n];
        for (var i = 0; i < n; i++) {
            x[i] = ab[i][n] / ab[i][i];
        }
        return x;
    }
}
