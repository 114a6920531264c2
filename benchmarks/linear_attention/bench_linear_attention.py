#!/usr/bin/env python3
"""Times the recurrences, mlstm and conv_fft through the C ABI beside their limits, peers and softmax attention, and says which figures are reached.

    benchmarks/linear_attention/bench_linear_attention.py --library libculebra.so --output linear_attention.json [--device cuda|cpu|simt] [--quick]

Operands rotate over 256 MB. Results are checked against the recurrence in double first, on the cpu the whole of them against torch's. Rows that
figures are stated for come first, then time against length (gated_delta_rule beside softmax attention) and decoding against batch. Peers: fla on a
GPU, where it is installed; on the cpu torch, in chunks or, for decoding, step by step; of conv_fft torch's transforms on both. --shape B,T,H,HV,K,V takes another shape; simt only checks.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
from bench import Bench, parser  # noqa: E402

import mixers  # noqa: E402
from cases import OPS, Case  # noqa: E402

# name, (op, B, T, H, HV, K, V, states), gate and stretch in ms, or as a fraction of the bandwidth
FIGURES = [
    ("gated_delta_rule 16/64 heads, 1 x 32768", ("gated_delta_rule", 1, 32768, 16, 64, 128, 128, False), 1.2, 0.6),
    ("gated_delta_rule 16/32, 1 x 32768", ("gated_delta_rule", 1, 32768, 16, 32, 128, 128, False), 0.85, 0.45),
    ("gated_delta_rule 16/32, 4 x 8192", ("gated_delta_rule", 4, 8192, 16, 32, 128, 128, False), 0.42, 0.30),
    ("kda 64 heads, 1 x 8192", ("kda", 1, 8192, 64, 64, 128, 128, False), 1.2, 0.7),
    ("kda 64 heads, 2 x 16384", ("kda", 2, 16384, 64, 64, 128, 128, False), 3.0, 1.6),
    ("simple_gla 64 heads, 1 x 32768", ("simple_gla", 1, 32768, 64, 64, 128, 128, False), 1.0, 0.65),
]
# The same for mlstm with 256 x 512 states: (gate, B, T, H, K, V).
MLSTM_FIGURES = [
    ("mlstm 256/512, 65536 tokens, sigmoid", ("sigmoid", 8, 8192, 8, 256, 512), 2.4, 1.2),
    ("mlstm 256/512, 65536 tokens, exp", ("exp", 8, 8192, 8, 256, 512), 3.2, 1.5),
]
DECODE = ("decoding, N x HV = 8192, of the bandwidth", ("gated_delta_rule", 256, 1, 16, 32, 128, 128, True), 0.75, 0.88)


def works(device, shape, quick):
    """(op, B, T, H, HV, K, V, with states)"""
    if shape or device == "simt":
        shape = tuple(map(int, (shape or "1,70,1,2,32,32").split(",")))
        return [(op, *shape, shape[1] <= 16) for op in OPS]
    if device == "cpu":
        wanted = [("gated_delta_rule", 1, 1 << i, 4, 8, 128, 128, False) for i in range(9, 15)]
        wanted += [("gated_delta_rule", 1 << i, 1, 16, 32, 128, 128, True) for i in range(0, 7, 2)]
        wanted += [(op, 1, 2048, 8, 8, 128, 128, False) for op in OPS] + [("kda", 16, 1, 32, 32, 128, 128, True), ("simple_gla", 16, 1, 32, 32, 128, 128, True)]
        return wanted + [("gated_delta_rule", 4, 1024, 4, 8, 128, 128, False), ("gated_delta_rule", 4, 8, 16, 32, 128, 128, True)]
    wanted = [row for _, row, _, _ in FIGURES] + [DECODE[1]]
    wanted += [("gated_delta_rule", 1, 32768, 2, 8, 128, 128, False), ("kda", 1, 32768, 8, 8, 128, 128, False)]  # few heads: sequences are cut
    wanted += [("gated_delta_rule", 1, 1 << i, 16, 32, 128, 128, False) for i in range(10, 15 if quick else 18)]
    wanted += [("gated_delta_rule", 1 << i, 1, 16, 32, 128, 128, True) for i in range(0, 10, 3 if quick else 1)]
    wanted += [(op, 4, 4096, 16, 16, d, d, False) for op in OPS for d in (64, 128)]
    return list(dict.fromkeys(wanted))


def reached(rows):
    fields = ("op", "B", "T", "H", "HV", "K", "V", "states"), ("gate", "B", "T", "H", "K", "V")
    by_work = {tuple(r[f] for f in names): r for r in rows for names in fields if all(f in r for f in names)}
    result = []
    for name, work, gate, stretch in FIGURES + MLSTM_FIGURES + [DECODE]:
        row = by_work.get(work)
        fraction = name == DECODE[0]
        measured = row and (row.get("fraction_of_bandwidth") if fraction else row["median_ms"])
        entry = {"figure": name, "unit": "" if fraction else "ms", "gate": gate, "stretch": stretch, "measured": measured}
        if measured:
            better = lambda bound: measured >= bound if fraction else measured <= bound
            entry["reached"] = "stretch" if better(stretch) else "gate" if better(gate) else "no"
        result.append(entry)
    return result


def main():
    p = parser(__doc__, 6)
    p.add_argument("--shape", help="B,T,H,HV,K,V instead of the tables")
    options = p.parse_args()
    bench = Bench("linear_attention", options)
    for op, *shape in works(bench.device, options.shape, options.quick):
        bench.measure(lambda: Case(bench.lib, op, *shape[:6], states=shape[6]), op, " ".join(map(str, shape[:6])))
    for kind, arguments in [] if options.shape else mixers.works(bench.device):
        bench.measure(lambda: kind(bench.lib, *arguments), kind.op, " ".join(map(str, arguments)))
    figures = reached(bench.rows) if bench.device == "cuda" else []
    bench.finish(figures=figures)
    for figure in figures:
        print(f"{figure['figure']:44} gate {figure['gate']:5g} stretch {figure['stretch']:5g} measured {figure['measured']} {figure.get('reached', '')}")


if __name__ == "__main__":
    main()
