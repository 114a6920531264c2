"""The figures that the kernels are to reach on an H200: what is measured, the gate and the stretch."""

BIG = (73728, 18432)  # the 72k x 18k of the MARLIN paper
FEW = (1, 2, 4, 8, 16, 32)


def _time(op, m, n, k):
    return [(op, m, n, k)], lambda r: r[op, m, n, k]["median_ms"] * 1e3


def _bandwidth(rows):
    keys = [("w4a16_gemm", m, n, k) for m, n, k in rows]
    return keys, lambda r: min(r[key]["fraction_of_bandwidth"] for key in keys)


def _over_cublas(op, rows):
    keys = [(op, m, n, k) for m, n, k in rows]
    return keys, lambda r: min(r[key]["speed_over cublas_bf16"] for key in keys)


def _tflops(op, m, n, k):
    return [(op, m, n, k)], lambda r: r[op, m, n, k]["tflop_s"]


def _slower_than_cublas(op, m, n, k):
    return [(op, m, n, k)], lambda r: 1 / r[op, m, n, k]["speed_over cublas_bf16"]


# name, unit, gate, stretch, whether less is better, (rows, what is made of them)
FIGURES = [
    ("w4a16 M=1, 8192 x 8192", "us", 13.5, 11, True, _time("w4a16_gemm", 1, 8192, 8192)),
    ("w4a16 M<=16, weights >= 150 MB, of the bandwidth", "", 0.80, 0.88, False,
     _bandwidth([(m, n, k) for n, k in ((57344, 8192), BIG) for m in FEW[:5]])),
    ("w4a16 over cuBLAS bf16, 72k x 18k, M=1..32", "x", 3.3, 3.6, False, _over_cublas("w4a16_gemm", [(m, *BIG) for m in FEW])),
    ("the same, M=64", "x", 2.2, 2.6, False, _over_cublas("w4a16_gemm", [(64, *BIG)])),
    ("the same, M=128", "x", 1.15, 1.35, False, _over_cublas("w4a16_gemm", [(128, *BIG)])),
    ("w4a16 M>=1024 over cuBLAS bf16", "x", 0.80, 0.95, False,
     _over_cublas("w4a16_gemm", [(m, n, k) for n, k in ((8192, 28672), (57344, 8192)) for m in (1024, 4096)])),
    ("fp8_gemm 4096 x 7168 x 16384", "TFLOP/s", 1000, 1300, False, _tflops("fp8_gemm", 4096, 7168, 16384)),
    ("w4a8 M=32, N=32768, K=7168", "us", 46, 36, True, _time("w4a8_gemm", 32, 32768, 7168)),
    ("linear_logprob, times the product alone", "x", 1.2, 1.05, True, _slower_than_cublas("linear_logprob", 4096, 128256, 4096)),
]


def shapes():
    return [key for *_, (keys, _) in FIGURES for key in keys]


def table(rows):
    by_key = {(r["op"], r["m"], r["n"], r["k"]): r for r in rows}
    result = []
    for name, unit, gate, stretch, less, (keys, value) in FIGURES:
        try:
            measured = value(by_key)
        except KeyError:  # a row that was left out, or has no peer
            result.append({"figure": name, "unit": unit, "gate": gate, "stretch": stretch, "measured": None})
            continue
        fraction = gate / measured if less else measured / gate
        passed = "stretch" if (measured <= stretch if less else measured >= stretch) else "gate" if fraction >= 1 else "no"
        result.append({"figure": name, "unit": unit, "gate": gate, "stretch": stretch, "measured": measured, "of_gate": fraction, "reached": passed})
    return result


def text(reached):
    lines = [f"{'figure':52} {'gate':>8} {'stretch':>8} {'measured':>9} {'of gate':>8}  reached"]
    for f in reached:
        if f["measured"] is None:
            lines.append(f"{f['figure']:52} {f['gate']:8g} {f['stretch']:8g} {'-':>9}")
        else:
            lines.append(f"{f['figure']:52} {f['gate']:8g} {f['stretch']:8g} {f['measured']:9.4g} {f['of_gate']:8.0%}  {f['reached']} {f['unit']}")
    return "\n".join(lines)
