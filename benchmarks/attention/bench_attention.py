#!/usr/bin/env python3
"""Times attention through the C ABI beside its limits and torch's scaled_dot_product_attention.

    benchmarks/attention/bench_attention.py --library libculebra.so --output attention.json [--backend cuda|cpu|simt] [--quick] [--only OP]

Calls lie in a graph and rotate over 256 MB of keys and values; a figure is the time of a replay over its launches. A few rows of every
result are checked against sums in double first. Gates are those of the family's README. --backend simt only checks the results.
"""
import argparse
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemm"))
import culebra
from culebra import Library, Unsupported, decode, encode
from peers import Peers, launches_for, summary

ROTATED_BYTES = 256 << 20
_i32, _f32 = culebra._i32, culebra._f32
_SCORES = (("scale", _f32), ("softcap", _f32), ("causal", _i32), ("window_left", _i32), ("window_right", _i32))
culebra.ARGS.update({
    "attention": culebra._args("q k v cu_q cu_k sink o lse", *_SCORES, ("reserved0", _i32)),
    "paged_attention": culebra._args("q k_cache v_cache k_scale v_scale page_table kv_len sink o lse", *_SCORES, ("split_kv_tokens", _i32)),
    "mla_attention": culebra._args("q cache page_table kv_len indices topk_len sink o lse", ("scale", _f32), ("dv", _i32), ("causal", _i32),
                                   ("split_kv_tokens", _i32)),
})

# op, name, shape; TFLOP/s or fraction of the bandwidth as gate and stretch where one is stated
PREFILL = [(d, causal, length) for d in (64, 128, 256) for causal in (True, False) for length in (1024, 4096, 16384)]
DECODE = [(batch, length, heads, kv_heads, dtype) for batch, length in ((1, 131072), (8, 32768), (64, 4096), (128, 4096))
          for heads, kv_heads in ((32, 8), (8, 8), (40, 8)) for dtype in ("bf16", "f8e4m3")]
LATENT = [(batch, length, heads) for batch, length in ((1, 32768), (64, 4096), (128, 4096)) for heads in (16, 128)]
GATES = {("attention", "d128 causal 16384"): ("tflop_s", 550, 650)}
DECODE_GATE = ("fraction_of_bandwidth", 0.80, 0.90)  # of caches of 256 MB and more


def values(rng, dtype, *shape):
    return encode(rng.standard_normal(shape, np.float32), dtype)


def softmax_row(q, k, v, scale):
    s = k @ q * scale
    w = np.exp(s - s.max())
    return w @ v / w.sum()


class Prefill:
    """One sequence of `length` tokens, 16 heads of width d (2048 / d where that is more)."""

    def __init__(self, lib, d, causal, length):
        self.op, self.name = "attention", f"d{d} {'causal' if causal else 'full'} {length}"
        heads = max(16, 2048 // d)
        rng = np.random.default_rng(1)
        self.copies = max(1, -(-ROTATED_BYTES // (4 * length * heads * d))) if lib.backend == "cuda" else 1
        self.shape = (length, heads, d)
        self.q = lib.array("bf16", length, heads, d).put(values(rng, "bf16", length, heads, d))
        pairs = [values(rng, "bf16", length, heads, d) for _ in range(2)]
        self.keys = [(lib.array("bf16", length, heads, d).put(pairs[0]), lib.array("bf16", length, heads, d).put(pairs[1]))
                     for _ in range(self.copies)]
        cu = lib.array("i32", 2).put(np.array([0, length]))
        self.o = lib.array("bf16", length, heads, d)
        self.calls = [lib.args("attention", q=self.q, k=k, v=v, cu_q=cu, cu_k=cu, o=self.o, causal=int(causal), window_left=-1, window_right=-1)
                      for k, v in self.keys]
        visible = length * (length + 1) // 2 if causal else length * length
        self.operations = 4 * d * heads * visible
        self.bytes = 8 * length * heads * d
        self.causal, self.d = causal, d

    def check(self, lib):
        lib.enqueue(self.op, self.calls[0])
        lib.synchronize()
        q, k, v, o = (decode(x.get(), "bf16") for x in (self.q, *self.keys[0], self.o))
        worst = 0
        for row in (0, 1, self.shape[0] // 2, self.shape[0] - 1):
            seen = row + 1 if self.causal else self.shape[0]
            ref = softmax_row(q[row, 1], k[:seen, 1], v[:seen, 1], self.d**-0.5)
            worst = max(worst, float(np.sqrt(np.mean((o[row, 1] - ref) ** 2) / np.mean(ref**2))))
        return worst

    def peer(self, torch):
        length, heads, d = self.shape
        q, k, v = (torch.randn(1, heads, length, d, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        return lambda i: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


class Decode:
    """One new token a sequence over pages of 16 in random order, heads of 128."""

    def __init__(self, lib, batch, length, heads, kv_heads, dtype):
        self.op, self.name = "paged_attention", f"b{batch} kv{length} h{heads}/{kv_heads} {dtype}"
        rng, page, d = np.random.default_rng(2), 16, 128
        pages, columns = batch * length // page, length // page
        size = 1 if dtype == "f8e4m3" else 2
        cache_bytes = 2 * batch * length * kv_heads * d * size
        self.copies = max(1, -(-ROTATED_BYTES // cache_bytes)) if lib.backend == "cuda" else 1
        some = values(rng, dtype, min(pages, 4096), page, kv_heads, d)
        self.caches = [tuple(lib.array(dtype, pages, page, kv_heads, d).put(some) for _ in range(2)) for _ in range(self.copies)]
        self.order = rng.permutation(pages).astype(np.int32).reshape(batch, columns)
        self.q, self.o = lib.array("bf16", batch, 1, heads, d), lib.array("bf16", batch, 1, heads, d)
        self.q.put(values(rng, "bf16", batch, 1, heads, d))
        table, lengths = lib.array("i32", batch, columns).put(self.order), lib.array("i32", batch).put(np.full(batch, length))
        scales = {}
        if dtype == "f8e4m3":
            ones = lib.array("f32", kv_heads).put(np.ones(kv_heads))
            scales = {"k_scale": ones, "v_scale": ones}
        self.calls = [lib.args(self.op, q=self.q, k_cache=k, v_cache=v, page_table=table, kv_len=lengths, o=self.o, causal=1, window_left=-1,
                               window_right=-1, **scales) for k, v in self.caches]
        self.bytes, self.operations = cache_bytes, 4 * batch * length * heads * d
        self.group, self.dtype = heads // kv_heads, dtype

    def check(self, lib):
        lib.enqueue(self.op, self.calls[0])
        lib.synchronize()
        k, v = (x.get() for x in self.caches[0])
        q, o, head = decode(self.q.get(), "bf16"), decode(self.o.get(), "bf16"), self.group
        rows = [decode(x[self.order[0], :, head // self.group], self.dtype).reshape(-1, 128) for x in (k, v)]
        ref = softmax_row(q[0, 0, head], *rows, 128**-0.5)
        return float(np.sqrt(np.mean((o[0, 0, head] - ref) ** 2) / np.mean(ref**2)))


class Latent:
    """One new token a sequence over a bf16 latent cache, pages of 64 in order."""

    def __init__(self, lib, batch, length, heads):
        self.op, self.name = "mla_attention", f"b{batch} kv{length} h{heads}"
        rng, page = np.random.default_rng(3), 64
        pages, columns = batch * length // page, length // page
        self.bytes = 2 * batch * length * 576
        self.copies = max(1, -(-ROTATED_BYTES // self.bytes)) if lib.backend == "cuda" else 1
        some = values(rng, "bf16", min(pages, 1024), page, 576)
        self.caches = [lib.array("bf16", pages, page, 576).put(some) for _ in range(self.copies)]
        self.q, self.o = lib.array("bf16", batch, 1, heads, 576).put(values(rng, "bf16", batch, 1, heads, 576)), lib.array("bf16", batch, 1, heads, 512)
        table = lib.array("i32", batch, columns).put(np.arange(pages).reshape(batch, columns))
        lengths = lib.array("i32", batch).put(np.full(batch, length))
        self.calls = [lib.args(self.op, q=self.q, cache=c, page_table=table, kv_len=lengths, o=self.o, dv=512, causal=1) for c in self.caches]
        self.operations, self.columns = 2 * batch * length * heads * (576 + 512), columns

    def check(self, lib):
        lib.enqueue(self.op, self.calls[0])
        lib.synchronize()
        rows = decode(self.caches[0].get()[:self.columns], "bf16").reshape(-1, 576)
        ref = softmax_row(decode(self.q.get(), "bf16")[0, 0, 1], rows, rows[:, :512], 576**-0.5)
        o = decode(self.o.get(), "bf16")[0, 0, 1]
        return float(np.sqrt(np.mean((o - ref) ** 2) / np.mean(ref**2)))


def time_case(lib, case, repetitions):
    graph = lib.capture(lambda: lib.enqueue(case.op, case.calls[0]))
    once = lib.time_graph(graph)
    lib.destroy_graph(graph)
    launches = launches_for(once, len(case.calls))
    graph = lib.capture(lambda: [lib.enqueue(case.op, case.calls[i % len(case.calls)]) for i in range(launches)])
    times = [lib.time_graph(graph) / launches for _ in range(repetitions + 2)]
    lib.destroy_graph(graph)
    return times[2:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu", "simt"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--only", help="one operator")
    parser.add_argument("--quick", action="store_true", help="every fourth shape")
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()
    lib = Library(options.library, options.backend)
    small = options.backend != "cuda"
    works = ([(Prefill, w) for w in ([(64, True, 160), (128, False, 96)] if small else PREFILL)] +
             [(Decode, w) for w in ([(2, 64, 6, 2, "bf16"), (2, 64, 6, 2, "f8e4m3")] if small else DECODE)] +
             [(Latent, w) for w in ([(1, 64, 3)] if small else LATENT)])
    peers = Peers(options.backend == "cuda", None)
    limits = peers.limits()
    rows = []
    for kind, shape in works[::4] if options.quick else works:
        try:
            case = kind(lib, *shape)
            if options.only and case.op != options.only:
                continue
            row = {"op": case.op, "case": case.name, "rms_ratio": case.check(lib), "plan": lib.plan(case.op, case.calls[0])}
        except Unsupported as reason:
            print(f"{kind.__name__} {shape}: {reason}", file=sys.stderr)
            continue
        if row["rms_ratio"] > 5e-3:
            raise SystemExit(f"wrong result: {row}")
        if options.backend != "simt":
            row.update(summary(time_case(lib, case, 5 if options.quick else 15)))
            ms = row["median_ms"]
            row.update(bytes=case.bytes, operations=case.operations, tflop_s=case.operations / ms / 1e9, gb_s=case.bytes / ms / 1e6)
            if limits:
                memory_ms, arithmetic_ms = case.bytes / limits["bandwidth_gb_s"] / 1e6, case.operations / limits["bf16_tflop_s"] / 1e9
                row.update(limit_ms=max(memory_ms, arithmetic_ms), fraction_of_bandwidth=memory_ms / ms)
                row["fraction_of_limit"] = row["limit_ms"] / ms
            if peers.torch and hasattr(case, "peer"):
                peer = summary(peers.time(case.peer(peers.torch), 1, 9))
                row["sdpa median_ms"], row["speed_over sdpa"] = peer["median_ms"], peer["median_ms"] / ms
            gate = GATES.get((case.op, case.name)) or (DECODE_GATE if case.op == "paged_attention" and case.bytes >= ROTATED_BYTES else None)
            if gate and gate[0] in row:
                row.update(figure=gate[0], gate=gate[1], stretch=gate[2], reached=row[gate[0]] >= gate[1])
        rows.append(row)
        print({key: row[key] for key in row if key in ("op", "case", "rms_ratio", "median_ms", "tflop_s", "gb_s", "fraction_of_limit", "gate", "reached")})
        del case
    device = lib.info.name.decode()
    with open(options.output, "w") as file:
        json.dump({"device": device, "commit": options.commit, "load_average": os.getloadavg()[0], "limits": limits, "versions": peers.versions(),
                   "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
