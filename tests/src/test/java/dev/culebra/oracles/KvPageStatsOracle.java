package dev.culebra.oracles;

/** Smallest and largest key of each page that holds a new token. */
final class KvPageStatsOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var page = p.size("k_cache", 1);
        var row = p.size("k_cache", 2) * p.size("k_cache", 3);
        var k = p.values("k_cache");
        var table = p.ints("page_table");
        var columns = p.size("page_table", 1);
        var first = p.ints("first_token");
        var lengths = p.ints("kv_len");
        var min = p.values("page_min");
        var max = p.values("page_max");
        for (var b = 0; b < lengths.length; b++) {
            for (var j = first[b] / page; j * page < lengths[b]; j++) {
                var at = table[b * columns + j];
                for (var i = 0; at >= 0 && i < row; i++) {
                    min[at * row + i] = Double.POSITIVE_INFINITY;
                    max[at * row + i] = Double.NEGATIVE_INFINITY;
                    for (var t = 0; t < Math.min(page, lengths[b] - j * page); t++) {
                        var x = k[(at * page + t) * row + i];
                        min[at * row + i] = Math.min(min[at * row + i], x);
                        max[at * row + i] = Math.max(max[at * row + i], x);
                    }
                }
            }
        }
        p.out("page_min", min, p.shape("page_min"));
        p.out("page_max", max, p.shape("page_max"));
    }
}
