#!/usr/bin/env python3
"""Times sparse attention through the C ABI beside dense attention of the same shape, the bound of what skipping can gain, and peers.

    benchmarks/sparse_attention/bench_sparse_attention.py --library libculebra.so --output sparse_attention.json [--minutes 5] [--only OP] [--tokens N]

Peers where they are installed: torch's flex_attention for block masks, fla's parallel_nsa for the mean dialect. Every result is
checked first against dense attention in double on a sample of rows. --backend simt and cpu only check: take a small --tokens.
"""
import argparse
import ctypes as C
import json
import os
import statistics
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemm"))
import culebra  # noqa: E402
from culebra import Library, Unsupported, decode, encode  # noqa: E402

_i32, _f32 = C.c_int32, C.c_float


def _numbers(*names):
    return [(name, _i32) for name in names]


culebra.ARGS.update({
    "attention": culebra._args("q k v cu_q cu_k sink o lse", ("scale", _f32), ("softcap", _f32),
                               *_numbers("causal", "window_left", "window_right", "reserved0")),
    "block_sparse_attention": culebra._args("q k v cu_q cu_k row_ptr col o lse", ("scale", _f32),
                                            *_numbers("block_q", "block_k", "head_map", "causal", "reserved0")),
    "neighborhood_attention": culebra._args(
        "q k v extra_k extra_v o lse", ("scale", _f32), *_numbers("window_entries", "stride_entries", "dilation_entries", "causal_entries"),
        ("window", _i32 * 3), ("stride", _i32 * 3), ("dilation", _i32 * 3), ("causal", _i32 * 3), ("reserved0", _i32)),
    "nsa_selected_attention": culebra._args("q k v cu_q cu_k idx o lse", ("scale", _f32), *_numbers("block", "order", "reserved0")),
    "nsa_attention": culebra._args("q k v cu_q cu_k gates k_cmp v_cmp cu_cmp o idx", ("scale", _f32),
                                   *_numbers("dialect", "l", "d", "block", "topk", "init", "local", "window", "reserved0")),
})


class Work:
    """q, k, v of one sequence in bf16, and the times of calls on them."""

    def __init__(self, lib, tokens, heads, kv_heads, dim, shape=None):
        self.lib, self.tokens, self.heads, self.kv_heads, self.dim = lib, tokens, heads, kv_heads, dim
        rng = np.random.default_rng(1)
        self.rng = rng
        lead = (1, *shape) if shape else (tokens,)
        def normal(h):
            return encode(rng.standard_normal((min(tokens, 4096), h, dim)).astype(np.float32), "bf16")
        self.q = lib.array("bf16", *lead, heads, dim).put(normal(heads))
        self.k = lib.array("bf16", *lead, kv_heads, dim).put(normal(kv_heads))
        self.v = lib.array("bf16", *lead, kv_heads, dim).put(normal(kv_heads))
        self.o = lib.array("bf16", *lead, heads, dim)
        self.cu = lib.array("i32", 2).put(np.array([0, tokens]))

    def host(self):
        def flat(a, h):
            return decode(a.get(), "bf16").reshape(self.tokens, h, self.dim)
        return flat(self.q, self.heads), flat(self.k, self.kv_heads), flat(self.v, self.kv_heads), flat(self.o, self.heads)

    def check(self, seen, rows=16):
        """seen(t, kv_head): the keys that query t sees."""
        q, k, v, o = self.host()
        error = size = 0
        for t in self.rng.choice(self.tokens, min(rows, self.tokens), replace=False):
            h = int(self.rng.integers(self.heads))
            g = h * self.kv_heads // self.heads
            keys = seen(int(t), g)
            want = np.zeros(self.dim)
            if len(keys):
                s = k[keys, g] @ q[t, h] / np.sqrt(self.dim)
                w = np.exp(s - s.max())
                want = w @ v[keys, g] / w.sum()
            error += np.sum((o[t, h] - want) ** 2)
            size += np.sum(want**2)
        ratio = float(np.sqrt(error / max(size, 1e-300)))
        if not ratio <= 5e-3:
            raise SystemExit(f"rms ratio {ratio:.3g} is beyond 5e-3")
        return ratio

    def time(self, op, args, repetitions=11):
        if self.lib.backend == "simt":
            return 0.0
        self.lib.enqueue(op, args)
        self.lib.synchronize()
        graph = self.lib.capture(lambda: self.lib.enqueue(op, args))
        times = [self.lib.time_graph(graph) for _ in range(repetitions + 2)][2:]
        self.lib.destroy_graph(graph)
        return statistics.median(times)


def row(op, name, work, ms, dense_ms, kept, ratio, **more):
    bound = 1 / kept if kept else None
    return {"op": op, "case": name, "tokens": work.tokens, "heads": work.heads, "kv_heads": work.kv_heads, "dim": work.dim, "rms_ratio": ratio,
            "median_ms": ms, "dense_ms": dense_ms, "kept": kept, "bound": bound, "speed_up": dense_ms / ms if ms else None,
            "of_bound": dense_ms / ms / bound if ms and bound else None, **more}


def dense_time(work, causal):
    args = work.lib.args("attention", q=work.q, k=work.k, v=work.v, cu_q=work.cu, cu_k=work.cu, o=work.o, causal=causal, window_left=-1,
                         window_right=-1)
    return work.time("attention", args)


def block_sparse(lib, tokens):
    """Densities of issue 5's table, 64 x 64 and 128 x 128 blocks, one mask."""
    work = Work(lib, tokens, 16, 16, 128)
    dense = dense_time(work, 0)
    for block in (64, 128):
        n = -(-tokens // block)
        for density in (.1, .25, .5):
            kept = max(1, round(density * n))
            columns = np.sort(np.argsort(work.rng.random((n, n)), axis=1)[:, :kept], axis=1)
            row_ptr = lib.array("i64", n + 1).put(np.arange(n + 1) * kept)
            col = lib.array("i32", n * kept).put(columns.reshape(-1))
            args = lib.args("block_sparse_attention", q=work.q, k=work.k, v=work.v, cu_q=work.cu, cu_k=work.cu, row_ptr=row_ptr, col=col, o=work.o,
                            block_q=block, block_k=block, head_map=1)
            ms = work.time("block_sparse_attention", args)
            lib.enqueue("block_sparse_attention", args)
            lib.synchronize()
            ratio = work.check(lambda t, g: np.concatenate(
                [np.arange(b * block, min((b + 1) * block, tokens)) for b in columns[t // block]]))
            yield row("block_sparse_attention", f"block {block}, density {density}", work, ms, dense, kept / n, ratio)


def neighborhoods(lib, tokens):
    """NATTEN's published cases; a small --tokens takes a line alone."""
    cases = [("1-D", (tokens,), (max(tokens // 16, 1),), (stride,)) for stride in (1, max(tokens // 128, 1), max(tokens // 16, 1))]
    if tokens >= 32768:
        cases += [("FLUX 256 x 256", (256, 256), (80, 80), (16, 16)), ("Hunyuan", (30, 48, 80), (18, 24, 24), (16, 8, 8)),
                  ("Hunyuan, stride 1", (30, 48, 80), (18, 24, 24), (1, 1, 1))]
    for name, shape, window, stride in cases:
        total = int(np.prod(shape))
        work = Work(lib, total, 24 if len(shape) > 1 else 1, 24 if len(shape) > 1 else 1, 128, shape)
        dense = 0.0
        if lib.backend == "cuda":
            plain = Work(lib, total, work.heads, work.kv_heads, 128)
            dense = dense_time(plain, 0)
            del plain
        args = lib.args("neighborhood_attention", q=work.q, k=work.k, v=work.v, o=work.o, window_entries=len(shape), stride_entries=len(shape))
        for a in range(len(shape)):
            args.window[a], args.stride[a] = window[a], stride[a]
        ms = work.time("neighborhood_attention", args)
        lib.enqueue("neighborhood_attention", args)
        lib.synchronize()

        def seen(t, g):
            at, ranges = np.unravel_index(t, shape), []
            for i, n, w, s in zip(at, shape, window, stride):
                first = max(0, min(min(int(i) // s * s + s // 2, n - 1) - w // 2, n - w))
                ranges.append(np.arange(first, first + w))
            return np.ravel_multi_index(np.meshgrid(*ranges, indexing="ij"), shape).reshape(-1)
        kept = float(np.prod([w / n for w, n in zip(window, shape)]))
        yield row("neighborhood_attention", f"{name} window {window} stride {stride}", work, ms, dense, kept, work.check(seen, 4))


def selected(lib, tokens):
    """Both orders of the selected attention: G 1 to 16, 16 blocks of 64."""
    for group in (1, 2, 4, 8, 16):
        work = Work(lib, tokens, 4 * group, 4, 128)
        dense = dense_time(work, 1)
        n, block = 16, 64
        current = np.arange(tokens) // block
        idx = np.full((4, tokens, n), -1, np.int32)
        for g in range(4):
            drawn = (work.rng.random((tokens, n)) * (current[:, None] + 1)).astype(np.int32)
            drawn[:, 0], drawn[:, 1] = 0, current
            drawn.sort(axis=1)
            drawn[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = -1
            idx[g] = drawn
        idx_array = lib.array("i32", 4, tokens, n).put(idx)
        for order, name in ((1, "query"), (2, "kv")):
            args = lib.args("nsa_selected_attention", q=work.q, k=work.k, v=work.v, cu_q=work.cu, cu_k=work.cu, idx=idx_array, o=work.o, block=block,
                            order=order)
            lib.enqueue("nsa_selected_attention", args)
            lib.synchronize()
            ms = work.time("nsa_selected_attention", args)
            ratio = work.check(lambda t, g: np.concatenate(
                [np.arange(b * block, min((b + 1) * block, t + 1)) for b in idx[g, t] if b >= 0]))
            yield row("nsa_selected_attention", f"G {group}, order {name}", work, ms, dense, None, ratio)


def fla_peer(tokens, heads, kv_heads, repetitions=7):
    try:
        import torch
        from fla.ops.nsa import parallel_nsa
    except ImportError:
        return None
    shape = (1, tokens)
    q = torch.randn(*shape, heads, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(*shape, kv_heads, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    gates = [torch.rand(*shape, heads, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    times = []
    for _ in range(repetitions + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        parallel_nsa(q, k, v, g_cmp=gates[0], g_slc=gates[1], g_swa=gates[2], block_counts=16, block_size=64, window_size=512)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[2:])


def whole(lib, tokens):
    """nsa_attention, mean dialect, against dense attention and fla."""
    for heads, kv_heads in ((64, 4), (16, 4)):
        work = Work(lib, tokens, heads, kv_heads, 128)
        dense = dense_time(work, 1)
        gates = lib.array("f32", tokens, heads, 3).put(np.tile(np.array([0, 0, 1], np.float32), (min(tokens, 4096), heads, 1)))
        args = lib.args("nsa_attention", q=work.q, k=work.k, v=work.v, cu_q=work.cu, cu_k=work.cu, gates=gates, o=work.o, dialect=0, l=64, d=64,
                        block=64, topk=16, init=1, local=2, window=512)
        lib.enqueue("nsa_attention", args)
        lib.synchronize()
        ms = work.time("nsa_attention", args)
        ratio = work.check(lambda t, g: np.arange(max(0, t - 511), t + 1))  # the gates leave the window alone
        peer = fla_peer(tokens, heads, kv_heads) if lib.backend == "cuda" else None
        yield row("nsa_attention", f"mean, {heads} heads of {kv_heads}", work, ms, dense, None, ratio, fla_ms=peer,
                  **({"speed_over fla": peer / ms} if peer and ms else {}))


CASES = {"block_sparse_attention": block_sparse, "neighborhood_attention": neighborhoods, "nsa_selected_attention": selected,
         "nsa_attention": whole}
LENGTHS = {"block_sparse_attention": (32768,), "neighborhood_attention": (32768,), "nsa_selected_attention": (16384, 65536),
           "nsa_attention": (4096, 16384, 65536)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu", "simt"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only", help="one operator")
    parser.add_argument("--tokens", type=int, help="instead of the table's lengths")
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()
    lib = Library(options.library, options.backend)
    end = time.monotonic() + 60 * options.minutes
    rows, left_out = [], []
    for op, cases in CASES.items():
        if options.only and op != options.only:
            continue
        for tokens in (options.tokens,) if options.tokens else LENGTHS[op]:
            if time.monotonic() > end:
                left_out.append(f"{op} {tokens}")
                continue
            try:
                for result in cases(lib, tokens):
                    rows.append(result)
                    print(f"{op} {result['case']}: {result['median_ms']:.4f} ms, dense {result['dense_ms']:.4f} ms", file=sys.stderr)
            except Unsupported as reason:
                left_out.append(str(reason))
    with open(options.output, "w") as file:
        json.dump({"benchmark": "sparse_attention", "commit": options.commit, "device": lib.info.name.decode(),
                   "detail": lib.info.detail.decode(), "left_out": left_out, "rows": rows}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
