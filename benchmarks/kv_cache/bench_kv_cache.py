#!/usr/bin/env python3
"""Times the KV cache's operators and the attention that estimates choose through the C ABI, beside their limits and dense attention.

    benchmarks/kv_cache/bench_kv_cache.py --library libculebra.so --output kv_cache.json [--minutes 5] [--only OP] [--tokens N]

Each operator is run on a small problem first, on the device and on the cpu backend of the same library, and its results compared. Then it
is timed on a large one; the limit is the bytes over the measured bandwidth (--bandwidth, bytes a second), or dense attention's time times
the share that is computed. --backend simt only checks: take a small --tokens.
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

_i32, _f32, _f64 = C.c_int32, C.c_float, C.c_double
culebra.ARGS.update({
    "attention": culebra._args("q k v cu_q cu_k sink o lse", ("scale", _f32), ("softcap", _f32),
                               *((n, _i32) for n in ("causal", "window_left", "window_right", "reserved0"))),
    "paged_attention": culebra._args("q k_cache v_cache k_scale v_scale page_table kv_len sink o lse", ("scale", _f32), ("softcap", _f32),
                                     *((n, _i32) for n in ("causal", "window_left", "window_right", "split_kv_tokens"))),
    "bitmap_kv_compress": culebra._args("x values bits", ("keep", _i32), ("reserved0", _i32)),
    "bitmap_kv_attention": culebra._args("q k_values k_bits v_values v_bits page_table kv_len k_tail v_tail tail_len o lse", ("scale", _f32),
                                         ("split_kv_tokens", _i32)),
    "kv_page_stats": culebra._args("k_cache page_table first_token kv_len page_min page_max"),
    "kv_select": culebra._args("q page_min page_max page_table page_count q_ref prev_idx idx count",
                               *((n, _i32) for n in ("topk", "sink", "recent")), ("theta", _f32)),
    "kv_merge": culebra._args("k v attn_mass cu_seqlens merged_k merged_v origin count", ("eps", _f64), ("protect", _f64)),
    "mla_index_topk": culebra._args("q keys weights cu_q page_table kv_len idx", ("topk", _i32), ("slots", _i32)),
    "cca_qkv": culebra._args("x_q x_k x_v1 x_v2 conv1_w conv1_b conv2_w conv2_b temp cos sin conv_state v_state q k v new_conv_state new_v_state"),
    "sparse_linear_attention": culebra._args("q k v proj_w proj_b o", ("critical", _f64), ("negligible", _f64), ("eps", _f32), ("scale", _f32),
                                             *((n, _i32) for n in ("block", "phi", "mode", "reserved0"))),
    "estimated_sparse_attention": culebra._args("q k v cu_q cu_k tau o lse kept", ("scale", _f32),
                                                *((n, _i32) for n in ("block_q", "block_k", "sink", "local", "est", "dense_length", "reserved0"))),
})

HEADS, DIM, PAGE = 8, 128, 64


class Problem:
    """The operands of one call, the same on every device: made from a seed."""

    def __init__(self, lib):
        self.lib, self.rng, self.bytes = lib, np.random.default_rng(7), 0

    def normal(self, dtype, *shape, scale=1.0):
        some = (min(shape[0], max(1, (1 << 22) // max(1, int(np.prod(shape[1:]))))), *shape[1:])
        return self.put(dtype, shape, encode((scale * self.rng.standard_normal(some)).astype(np.float32), dtype))

    def put(self, dtype, shape, values):
        array = self.lib.array(dtype, *shape).put(values)
        self.bytes += array.bytes
        return array

    def ints(self, values):
        values = np.asarray(values, np.int32)
        return self.put("i32", values.shape, values)

    def out(self, dtype, *shape):
        return self.put(dtype, shape, np.zeros(1, culebra.DTYPES[dtype][2]))


def bitmap_kv_compress(p, tokens):
    x = p.normal("bf16", tokens, HEADS, DIM)
    values, bits = p.out("bf16", tokens, HEADS, 40), p.out("i64", tokens, HEADS, DIM // 64)
    return dict(x=x, values=values, bits=bits, keep=40), ("values", "bits"), "bytes"


def bitmap_kv_attention(p, tokens):
    pages = tokens // PAGE
    args = dict(q=p.normal("bf16", 1, 1, 4 * HEADS, DIM), page_table=p.ints(np.arange(pages)[None]), kv_len=p.ints([pages * PAGE]),
                k_tail=p.normal("bf16", 1, 256, HEADS, DIM), v_tail=p.normal("bf16", 1, 256, HEADS, DIM), tail_len=p.ints([200]))
    for side in "kv":
        kept = np.argsort(p.rng.random((4096, DIM)), axis=1)[:, :40]
        words = np.zeros((4096, 2), np.uint64)
        np.bitwise_or.at(words, (np.arange(4096)[:, None], kept // 64), np.uint64(1) << (kept % 64).astype(np.uint64))
        args[side + "_values"] = p.normal("bf16", pages, PAGE, HEADS, 40)
        args[side + "_bits"] = p.put("i64", (pages, PAGE, HEADS, 2), words.view(np.int64))
    args["o"] = p.out("bf16", 1, 1, 4 * HEADS, DIM)
    return args, ("o",), "bytes"


def paged_attention(p, tokens):
    pages = tokens // PAGE
    return dict(q=p.normal("bf16", 1, 1, 4 * HEADS, DIM), k_cache=p.normal("bf16", pages, PAGE, HEADS, DIM),
                v_cache=p.normal("bf16", pages, PAGE, HEADS, DIM), page_table=p.ints(np.arange(pages)[None]), kv_len=p.ints([pages * PAGE]),
                o=p.out("bf16", 1, 1, 4 * HEADS, DIM), causal=1, window_left=-1, window_right=-1), ("o",), "bytes"


def kv_page_stats(p, tokens):
    pages = tokens // PAGE
    low, high = p.out("bf16", pages, HEADS, DIM), p.out("bf16", pages, HEADS, DIM)
    return dict(k_cache=p.normal("bf16", pages, PAGE, HEADS, DIM), page_table=p.ints(np.arange(pages)[None]), first_token=p.ints([0]),
                kv_len=p.ints([pages * PAGE]), page_min=low, page_max=high), ("page_min", "page_max"), "bytes"


def kv_select(p, tokens):
    pages = tokens // PAGE
    topk = max(4, pages // 16)
    return dict(q=p.normal("bf16", 1, 4 * HEADS, DIM), page_min=p.normal("bf16", pages, HEADS, DIM), page_max=p.normal("bf16", pages, HEADS, DIM),
                page_table=p.ints(np.arange(pages)[None]), page_count=p.ints([pages]), idx=p.out("i32", 1, HEADS, topk),
                count=p.out("i32", 1, HEADS), topk=topk, sink=1, recent=2), ("idx", "count"), "bytes"


def kv_merge(p, tokens):
    return dict(k=p.normal("bf16", tokens, HEADS, DIM), v=p.normal("bf16", tokens, HEADS, DIM), attn_mass=p.normal("f32", tokens, HEADS),
                cu_seqlens=p.ints([0, tokens]), merged_k=p.out("bf16", tokens, HEADS, DIM), merged_v=p.out("bf16", tokens, HEADS, DIM),
                origin=p.out("i32", tokens, HEADS), count=p.out("i32", 1, HEADS), eps=0.05, protect=0.1), ("merged_k", "origin", "count"), "bytes"


def mla_index_topk(p, tokens, queries=1):
    pages = tokens // PAGE
    rows = p.rng.integers(0, 120, (min(pages * PAGE, 4096), 132)).astype(np.uint8) | (p.rng.integers(0, 2, (min(pages * PAGE, 4096), 132)) * 128).astype(np.uint8)
    rows[:, 128:] = np.frombuffer(np.float32(0.01).tobytes(), np.uint8)
    topk = min(2048, tokens // 4)
    return dict(q=p.normal("f8e4m3", queries, 64, 128), keys=p.put("u8", (pages, PAGE, 132), rows), weights=p.normal("f32", queries, 64),
                cu_q=p.ints([0, queries]), page_table=p.ints(np.arange(pages)[None]), kv_len=p.ints([pages * PAGE]),
                idx=p.out("i32", queries, topk), topk=topk), ("idx",), "bytes"


def cca_qkv(p, tokens):
    heads, kv_heads = 8, 2
    channels = (heads + kv_heads) * DIM
    return dict(x_q=p.normal("bf16", 1, tokens, heads * DIM), x_k=p.normal("bf16", 1, tokens, kv_heads * DIM),
                x_v1=p.normal("bf16", 1, tokens, kv_heads * DIM // 2), x_v2=p.normal("bf16", 1, tokens, kv_heads * DIM // 2),
                conv1_w=p.normal("bf16", channels, 2), conv2_w=p.normal("bf16", channels, DIM, 2, scale=DIM**-0.5), temp=p.normal("f32", kv_heads),
                q=p.out("bf16", 1, tokens, heads, DIM), k=p.out("bf16", 1, tokens, kv_heads, DIM), v=p.out("bf16", 1, tokens, kv_heads, DIM)), ("q", "k", "v"), "bytes"


def attention(p, tokens, causal=0, heads=4):
    return dict(q=p.normal("bf16", tokens, heads, DIM), k=p.normal("bf16", tokens, heads, DIM), v=p.normal("bf16", tokens, heads, DIM),
                cu_q=p.ints([0, tokens]), cu_k=p.ints([0, tokens]), o=p.out("bf16", tokens, heads, DIM), causal=causal, window_left=-1,
                window_right=-1), ("o",), "dense"


def causal_attention(p, tokens):
    return attention(p, tokens, 1)


causal_attention.op = "attention"


def op_of(make):
    return getattr(make, "op", make.__name__)


def sparse_linear_attention(p, tokens):
    return dict(q=p.normal("bf16", 1, 4, tokens, DIM), k=p.normal("bf16", 1, 4, tokens, DIM), v=p.normal("bf16", 1, 4, tokens, DIM),
                proj_w=p.normal("bf16", DIM, DIM, scale=DIM**-0.5), o=p.out("bf16", 1, 4, tokens, DIM), critical=0.05, negligible=0.10, eps=1e-5,
                block=64), ("o",), "dense"


def estimated_sparse_attention(p, tokens):
    args = attention(p, tokens)[0]
    del args["causal"], args["window_left"], args["window_right"]
    return dict(args, tau=p.normal("f32", 4, scale=0), kept=p.out("i64", 4), block_q=64, block_k=32, sink=32, local=128, dense_length=0), ("o",), "dense"


BYTES = (bitmap_kv_compress, bitmap_kv_attention, paged_attention, kv_page_stats, kv_select, kv_merge, mla_index_topk, cca_qkv)
DENSE = (sparse_linear_attention, estimated_sparse_attention)


def prepare(lib, make, tokens):
    p = Problem(lib)
    args, outputs, limit = make(p, tokens)
    if make is estimated_sparse_attention:
        args["tau"].put(np.full(4, 1.5 / tokens, np.float32))  # random scores: a few per cent are kept
    return lib.args(op_of(make), **args), args, outputs, p.bytes


def check(lib, cpu, make, tokens):
    results = []
    for device in (lib, cpu):
        args, operands, outputs, _ = prepare(device, make, tokens)
        device.enqueue(op_of(make), args)
        device.synchronize()
        results.append({name: decode(operands[name].get(), operands[name].dtype) for name in outputs})
    worst = 0.0
    for name, want in results[1].items():
        worst = max(worst, float(np.sqrt(np.sum((results[0][name] - want) ** 2) / max(np.sum(want**2), 1e-300))))
    # Chosen indices may differ where scores nearly agree; bytes of results round twice.
    if not worst <= (0.05 if make in (kv_select, mla_index_topk, kv_merge) else 1e-2):
        raise SystemExit(f"{make.__name__}: the device and the cpu differ by {worst:.3g}")
    return worst


def timed(lib, make, tokens, repetitions=11):
    args, operands, _, total = prepare(lib, make, tokens)
    if lib.backend == "simt":
        return 0.0, total, operands
    lib.enqueue(op_of(make), args)
    lib.synchronize()
    graph = lib.capture(lambda: lib.enqueue(op_of(make), args))
    times = [lib.time_graph(graph) for _ in range(repetitions + 2)][2:]
    lib.destroy_graph(graph)
    return statistics.median(times), total, operands


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--output")
    parser.add_argument("--backend", default="cuda", choices=("cuda", "simt"))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--bandwidth", type=float, default=4.3e12)
    options = parser.parse_args()
    lib, cpu = Library(options.library, options.backend), Library(options.library, "cpu")
    rows, end = [], time.monotonic() + 60 * options.minutes
    for make in BYTES + DENSE:
        if options.only and make.__name__ != options.only or time.monotonic() > end:
            continue
        try:
            error = check(lib, cpu, make, 256 if options.backend == "simt" else 2048)
            for tokens in [options.tokens] if options.tokens else [65536, 1048576] if make in BYTES else [16384, 32768, 65536]:
                ms, total, operands = timed(lib, make, tokens)
                row = {"op": make.__name__, "tokens": tokens, "differs_from_cpu": error, "median_ms": ms}
                if make in BYTES:
                    row |= {"bytes": total, "limit_ms": total / options.bandwidth * 1e3, "of_limit": total / options.bandwidth * 1e3 / ms if ms else None}
                else:
                    causal = make is estimated_sparse_attention
                    dense = timed(lib, causal_attention if causal else attention, tokens)[0]
                    row |= {"dense_ms": dense, "speed_up": dense / ms if ms else None}
                    if "kept" in operands:
                        blocks = (tokens // 64) * (tokens // 32) / 2 * 4
                        row["kept"] = float(operands["kept"].get().sum() / blocks)
                rows.append(row)
                print(json.dumps(row), flush=True)
        except Unsupported as reason:
            print(f"{make.__name__}: {reason}", file=sys.stderr)
    if options.output:
        with open(options.output, "w") as file:
            json.dump({"device": lib.info.name.decode(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
