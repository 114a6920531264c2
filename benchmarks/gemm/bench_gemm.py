#!/usr/bin/env python3
"""Times the matrix products through the C ABI, on a GPU beside their limits, cuBLAS and Marlin, and says which figures are reached.

    benchmarks/gemm/bench_gemm.py --library libculebra.so --output gemm.json [--marlin FOLDER] [--minutes 8] [--quick] [--only OP] [--shape M,N,K]

Calls lie in a graph and rotate over 256 MB of weights; a figure is the time of a replay over its launches. Every result is
checked against sums in double first. The rows that figures are stated for come first; what does not fit the time is listed as left out.
--backend cpu times what benchmarks/native does not, on the first layer, with the limits that it measured (--limits native-gemm.json);
--batch-invariant times w4a16_gemm and gemm on the first layer as plain and as batch_invariant calls: what the promise costs;
--backend simt only checks the results: take a small --shape.
"""
import argparse
import json
import os
import sys
import time

import figures
from cases import CASES
from culebra import BATCH_INVARIANT, Library, Unsupported
from peers import Peers, launches_for, summary

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)
FEW_TOKENS = (1, 16, 512)


def read_layers():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "layers.txt")
    with open(path) as file:
        fields = [[f.strip() for f in line.split("|")] for line in file if line.strip() and not line.startswith("#")]
    return [(model, name, int(n), int(k)) for model, name, n, k in fields]


def works(lib, quick, shape, invariant=False):
    """(op, model, layer, m, n, k), each once, the figures' first."""
    if invariant:
        model, name, n, k = ("", "shape", *map(int, shape.split(",")[1:])) if shape else read_layers()[0]
        return [(op, model, name, m, n, k) for op in ("w4a16_gemm", "gemm") for m in (TOKENS[:-2] if lib.backend != "simt" else (3,))]
    if shape:
        return [(op, "", "shape", *map(int, shape.split(","))) for op in CASES if lib.has(op) and op != "sparse_mlp"]
    layers = read_layers()
    if lib.backend != "cuda":
        model, name, n, k = layers[0]
        others = [op for op in CASES if op not in ("gemm", "w4a16_gemm", "sparse_mlp", "linear_logprob")]
        return ([(op, model, name, m, n, k) for op in others for m in FEW_TOKENS] +
                [("sparse_mlp", model, name, m, k, n) for m in (1, 4)] + [("linear_logprob", model, "head", 16, 128256, n)])
    wanted = [(op, "", "figure", m, n, k) for op, m, n, k in figures.shapes()]
    for model, name, n, k in layers:
        wanted += [("w4a16_gemm", model, name, m, n, k) for m in TOKENS]
    for model, name, n, k in layers[:1] if quick else layers:
        for op in CASES:
            if op in ("sparse_mlp", "linear_logprob"):
                continue
            wanted += [(op, model, name, m, n, k) for m in FEW_TOKENS]
    model, name, n, k = layers[0]
    wanted += [("sparse_mlp", model, name, m, k, n) for m in (1, 4)]  # k of the down projection is the number of rows inside
    seen, result = set(), []
    for work in wanted:
        key = (work[0], *work[3:])
        if key not in seen and lib.has(work[0]):
            seen.add(key)
            result.append(work)
    return result


def time_case(lib, case, repetitions):
    graph = lib.capture(lambda: lib.enqueue(case.op, case.calls[0]))
    once = lib.time_graph(graph)
    lib.destroy_graph(graph)
    launches = launches_for(once, len(case.calls)) if lib.backend != "simt" else 1

    def all_launches():
        for i in range(launches):
            lib.enqueue(case.op, case.calls[i % len(case.calls)])
    graph = lib.capture(all_launches)
    times = [lib.time_graph(graph) / launches for _ in range(repetitions + 2)]
    lib.destroy_graph(graph)
    return times[2:]


# The arithmetic of a kernel: on a GPU that of its tensor cores, on the cpu 16-bit integers or f32.
CUDA_PEAKS = dict.fromkeys(("fp8_gemm", "w4a8_gemm", "w6a8_gemm"), "f8_tflop_s")
CPU_PEAKS = dict.fromkeys(("w8a16_gemm", "w6a16_gemm", "w6a8_gemm"), "i16_tflop_s")


def peak_of(lib, op, limits):
    name = CUDA_PEAKS.get(op, "bf16_tflop_s") if lib.backend == "cuda" else CPU_PEAKS.get(op, "f32_tflop_s")
    return limits.get(name, limits.get("bf16_tflop_s"))


def limits_of_cpu(path):
    with open(path) as file:
        run = json.load(file)
    return {"bandwidth_gb_s": run["read_bandwidth_gb_s"], "f32_tflop_s": run["f32_peak_gflop_s"] / 1e3, "i16_tflop_s": run["i16_peak_gop_s"] / 1e3}


def measure(lib, peers, limits, dense_times, work, repetitions, invariant=False):
    op, model, layer, m, n, k = work
    case = CASES[op](lib, m, n, k)
    if invariant:
        case.check()
        plain = summary(time_case(lib, case, repetitions))["median_ms"]
        for call in case.calls:
            call.call.flags |= BATCH_INVARIANT
    row = {"op": op, "operands": case.operands, "model": model, "layer": layer, "m": m, "n": n, "k": k, "rms_ratio": case.check(),
           "plan": lib.plan(op, case.calls[0])}
    row.update(summary(time_case(lib, case, repetitions)))
    ms = row["median_ms"]
    row.update(bytes=case.bytes, operations=case.operations, gb_s=case.bytes / ms / 1e6, tflop_s=case.operations / ms / 1e9)
    if limits:
        memory_ms = case.bytes / limits["bandwidth_gb_s"] / 1e6
        arithmetic_ms = case.operations / peak_of(lib, op, limits) / 1e9
        row.update(limit="memory" if memory_ms >= arithmetic_ms else "arithmetic", limit_ms=max(memory_ms, arithmetic_ms))
        row["fraction_of_limit"] = row["limit_ms"] / ms
        row["fraction_of_bandwidth"] = memory_ms / ms
    if invariant:
        row.update(batch_invariant=True, plain_ms=plain, times_plain=ms / plain)
    del case
    if peers.torch and not invariant and op not in ("quantize_activations", "sparse_mlp"):  # one product of the same shape
        peers.torch.cuda.empty_cache()
        if (m, n, k) not in dense_times:
            dense_times[m, n, k] = summary(peers.dense(m, n, k, repetitions))
        add_peer(row, "cublas_bf16", dense_times[m, n, k])
        marlin = peers.int4(m, n, k, repetitions) if op == "w4a16_gemm" else None
        if marlin:
            add_peer(row, "marlin", summary(marlin))
        peers.torch.cuda.empty_cache()
    return row


def add_peer(row, name, timing):
    row.update({f"{name} {key}": value for key, value in timing.items()})
    row[f"speed_over {name}"] = timing["median_ms"] / row["median_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu", "simt"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--limits", help="the cpu's, from the results of benchmarks/native")
    parser.add_argument("--marlin", help="a folder with the built package of github.com/IST-DASLab/marlin")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--quick", action="store_true", help="other operators than w4a16_gemm on the first layer alone")
    parser.add_argument("--only", help="one operator")
    parser.add_argument("--batch-invariant", action="store_true", help="what batch_invariant costs")
    parser.add_argument("--shape", help="M,N,K instead of the tables")
    parser.add_argument("--largest", type=float, help="leave out what takes more operations than this")
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()

    lib = Library(options.library, options.backend)
    peers = Peers(options.backend == "cuda", options.marlin)
    end = time.monotonic() + 60 * options.minutes
    limits = limits_of_cpu(options.limits) if options.limits else peers.limits()
    rows, left_out, dense_times = [], [], {}
    repetitions = 5 if options.quick else 15
    for work in works(lib, options.quick, options.shape, options.batch_invariant):
        op, _, _, m, n, k = work
        if options.only and op != options.only or options.largest and 2.0 * m * n * k > options.largest:
            continue
        if time.monotonic() > end:
            left_out.append(" ".join(map(str, work)))
            continue
        try:
            row = measure(lib, peers, limits, dense_times, work, repetitions, options.batch_invariant)
        except Unsupported as reason:
            left_out.append(str(reason))
            continue
        rows.append(row)
        print(f"{op} M {m} N {n} K {k}: {row['median_ms']:.4f} ms, {row['gb_s']:.0f} GB/s, {row['tflop_s']:.1f} TFLOP/s"
              + (f", {row['times_plain']:.2f} times a plain call" if "times_plain" in row else ""), file=sys.stderr)

    reached = figures.table(rows) if options.backend == "cuda" and not options.batch_invariant else []
    results = {"benchmark": "gemm", "commit": options.commit, "device": lib.info.name.decode(), "detail": lib.info.detail.decode(),
               **peers.versions(), **limits, "figures": reached, "left_out": left_out, "rows": rows}
    with open(options.output, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    if reached:
        print(figures.text(reached))


if __name__ == "__main__":
    main()
