#!/usr/bin/env python3
"""Times the recurrences through the C ABI beside their limits, fla and softmax attention, and says which figures are reached.

    benchmarks/linear_attention/bench_linear_attention.py --library libculebra.so --output linear_attention.json [--minutes 6] [--quick]

Calls lie in a graph and rotate over 256 MB of operands; a figure is the time of a replay over its launches. Results are checked against
the recurrence in double first. Rows that figures are stated for come first, then time against length (gated_delta_rule
beside softmax attention) and decoding against batch. --backend simt only checks: give --shape B,T,H,HV,K,V; --backend cpu times such a shape too.
"""
import argparse
import json
import sys
import time

from cases import Case, OPS  # first: it makes the modules of ../gemm importable
from culebra import Library, Unsupported
import importlib.util
import os

import peers as linear_peers

_gemm = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemm", "peers.py")
_spec = importlib.util.spec_from_file_location("gemm_peers", _gemm)
gemm_peers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gemm_peers)

# name, (op, B, T, H, HV, K, V, states), gate and stretch in ms, or as a fraction of the bandwidth
FIGURES = [
    ("gated_delta_rule 16/64 heads, 1 x 32768", ("gated_delta_rule", 1, 32768, 16, 64, 128, 128, False), 1.2, 0.6),
    ("gated_delta_rule 16/32, 1 x 32768", ("gated_delta_rule", 1, 32768, 16, 32, 128, 128, False), 0.85, 0.45),
    ("gated_delta_rule 16/32, 4 x 8192", ("gated_delta_rule", 4, 8192, 16, 32, 128, 128, False), 0.42, 0.30),
    ("kda 64 heads, 1 x 8192", ("kda", 1, 8192, 64, 64, 128, 128, False), 1.2, 0.7),
    ("kda 64 heads, 2 x 16384", ("kda", 2, 16384, 64, 64, 128, 128, False), 3.0, 1.6),
    ("simple_gla 64 heads, 1 x 32768", ("simple_gla", 1, 32768, 64, 64, 128, 128, False), 1.0, 0.65),
]
DECODE = ("decoding, N x HV = 8192, of the bandwidth", ("gated_delta_rule", 256, 1, 16, 32, 128, 128, True), 0.75, 0.88)


def works(options):
    if options.shape:
        shape = tuple(map(int, options.shape.split(",")))
        return [(op, *shape, shape[1] <= 16) for op in OPS]
    wanted = [row for _, row, _, _ in FIGURES] + [DECODE[1]]
    wanted += [("gated_delta_rule", 1, 32768, 2, 8, 128, 128, False), ("kda", 1, 32768, 8, 8, 128, 128, False)]  # few heads: sequences are cut
    wanted += [("gated_delta_rule", 1, 1 << i, 16, 32, 128, 128, False) for i in range(10, 15 if options.quick else 18)]
    wanted += [("gated_delta_rule", 1 << i, 1, 16, 32, 128, 128, True) for i in range(0, 10, 3 if options.quick else 1)]
    wanted += [(op, 4, 4096, 16, 16, d, d, False) for op in OPS for d in (64, 128)]
    return list(dict.fromkeys(wanted))


def time_case(lib, case, repetitions):
    def graph_of(count):
        return lib.capture(lambda: [lib.enqueue(case.op, case.calls[i % len(case.calls)]) for i in range(count)])
    graph = graph_of(1)
    once = lib.time_graph(graph)
    lib.destroy_graph(graph)
    launches = gemm_peers.launches_for(once, len(case.calls)) if lib.backend != "simt" else 1
    graph = graph_of(launches)
    times = [lib.time_graph(graph) / launches for _ in range(repetitions + 2)]
    lib.destroy_graph(graph)
    return times[2:]


def measure(lib, peers, limits, work, repetitions):
    op, B, T, H, HV, K, V, states = work
    case = Case(lib, *work[:7], states=states)
    row = {"op": op, "B": B, "T": T, "H": H, "HV": HV, "K": K, "V": V, "states": states, "rms_ratio": case.check(),
           "plan": lib.plan(op, case.calls[0])}
    row.update(gemm_peers.summary(time_case(lib, case, repetitions)))
    ms = row["median_ms"]
    row.update(bytes=case.bytes, operations=case.operations, gb_s=case.bytes / ms / 1e6, tflop_s=case.operations / ms / 1e9)
    if limits:
        memory_ms, arithmetic_ms = case.bytes / limits["bandwidth_gb_s"] / 1e6, case.operations / limits["bf16_tflop_s"] / 1e9
        row.update(limit="memory" if memory_ms >= arithmetic_ms else "arithmetic", limit_ms=max(memory_ms, arithmetic_ms))
        row["fraction_of_limit"] = row["limit_ms"] / ms
        row["fraction_of_bandwidth"] = memory_ms / ms
    del case
    fla = peers.recurrence(op, work[1:7], states, repetitions)
    if fla:
        row["fla_ms"], row["speed_over_fla"] = fla, fla / ms
    if op == "gated_delta_rule" and B == 1 and T >= 1024:
        attention = peers.attention(work[1:7], repetitions)
        if attention:
            row["softmax_attention_ms"] = attention
    return row


def reached(rows):
    by_work = {tuple(r[f] for f in ("op", "B", "T", "H", "HV", "K", "V", "states")): r for r in rows}
    result = []
    for name, work, gate, stretch in FIGURES + [DECODE]:
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu", "simt"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="one operator")
    parser.add_argument("--shape", help="B,T,H,HV,K,V instead of the tables")
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()

    lib = Library(options.library, options.backend)
    peers = linear_peers.Peers(options.backend == "cuda")
    limits = gemm_peers.Peers(options.backend == "cuda", None).limits()
    end = time.monotonic() + 60 * options.minutes
    rows, left_out = [], []
    for work in works(options):
        if options.only and work[0] != options.only:
            continue
        if time.monotonic() > end:
            left_out.append(" ".join(map(str, work)))
            continue
        try:
            row = measure(lib, peers, limits, work, 5 if options.quick else 15)
        except Unsupported as reason:
            left_out.append(str(reason))
            continue
        rows.append(row)
        print(f"{' '.join(map(str, work[:7]))}: {row['median_ms']:.4f} ms, {row['gb_s']:.0f} GB/s, {row['tflop_s']:.1f} TFLOP/s, rms {row['rms_ratio']:.1e}",
              file=sys.stderr)
    figures = reached(rows) if options.backend == "cuda" else []
    results = {"benchmark": "linear_attention", "commit": options.commit, "device": lib.info.name.decode(), "detail": lib.info.detail.decode(),
               **peers.versions(), **limits, "figures": figures, "left_out": left_out, "rows": rows}
    with open(options.output, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    for figure in figures:
        print(f"{figure['figure']:44} gate {figure['gate']:5g} stretch {figure['stretch']:5g} measured {figure['measured']} {figure.get('reached', '')}")


if __name__ == "__main__":
    main()
