#!/usr/bin/env python3
"""Times the KV cache's operators and the attention that estimates choose through the C ABI, beside their limits, dense attention and torch.

    benchmarks/kv_cache/bench_kv_cache.py --library libculebra.so --output kv_cache.json [--device cuda|cpu|simt] [--only OP] [--tokens N]

Each operator is run on a small problem first and its result compared: on a GPU with that of the cpu backend of the same library, on the cpu with
sums in double. Then it is timed on a large one. dense is the library's attention on what was not compressed or skipped, sdpa and torch are
torch's. simt only checks.
"""
import ctypes as C
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
from bench import Bench, parser, rms_ratio  # noqa: E402  (makes the modules of ../gemm importable)
import culebra  # noqa: E402
from culebra import Library, decode, encode  # noqa: E402

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
TOKENS = {"cuda": ([65536, 1048576], [16384, 32768, 65536]), "cpu": ([16384, 65536], [4096, 8192]), "simt": ([256], [256])}
CHECKED_TOKENS = {"cuda": 2048, "cpu": 512, "simt": 256}


def prepare(lib, make, tokens, **changes):
    p = Problem(lib)
    args, outputs, _ = make(p, tokens)
    if make is estimated_sparse_attention:
        args["tau"].put(np.full(4, 1.5 / tokens, np.float32))  # random scores: a few per cent are kept
    args.update(changes)
    return lib.args(op_of(make), **args), args, outputs, p.bytes


# ---- checks

def against_cpu(lib, make, tokens):
    cpu, results = Library(lib.path, "cpu"), []
    for device in (lib, cpu):
        args, operands, outputs, _ = prepare(device, make, tokens)
        device.enqueue(op_of(make), args)
        device.synchronize()
        results.append({name: decode(operands[name].get(), operands[name].dtype) for name in outputs})
    return max(rms_ratio(results[0][name], want) for name, want in results[1].items())


def softmax(q, k, v):
    s = k @ q * q.size**-0.5
    w = np.exp(s - s.max())
    return w @ v / w.sum()


def in_double(lib, make, tokens):
    """What the cpu computes, against the formula on some of its rows; None where only the other devices are compared."""
    args, x, _, _ = prepare(lib, make, tokens)
    everything = None
    if make is sparse_linear_attention:  # every block critical: dense attention
        everything = prepare(lib, make, tokens, critical=1.0, negligible=0.0)
    elif make is estimated_sparse_attention:  # no threshold: causal attention
        everything = prepare(lib, make, tokens)
        everything[1]["tau"].put(np.zeros(4, np.float32))
    if everything:
        args, x = everything[:2]
    lib.enqueue(op_of(make), args)
    lib.synchronize()
    value = {name: decode(a.get(), a.dtype) if a.dtype in ("bf16", "f8e4m3", "f32") else a.get() for name, a in x.items() if isinstance(a, culebra.Array)}

    def expanded(values, bits, head):
        """Rows that were kept in part, with zeros where nothing was kept."""
        kept = np.unpackbits(bits[..., head, :].reshape(-1, 2).view(np.uint8), axis=1, bitorder="little").astype(bool)
        rows = np.zeros(kept.shape)
        rows[kept] = values[..., head, :].reshape(-1, 40).reshape(-1)
        return rows
    if make is bitmap_kv_compress:
        got, rows = expanded(value["values"], value["bits"], 1), value["x"][:, 1]
        least = np.sort(np.abs(rows), axis=1)[:, -40]
        if np.any(np.abs(rows)[got != 0] < np.repeat(least, np.count_nonzero(got, axis=1))):
            return np.inf
        return rms_ratio(got[got != 0], rows[got != 0])
    if make is bitmap_kv_attention:
        k, v = (np.concatenate([expanded(value[side + "_values"], value[side + "_bits"], 1), value[side + "_tail"][0, :200, 1]]) for side in "kv")
        return rms_ratio(value["o"][0, 0, 5], softmax(value["q"][0, 0, 5], k, v))
    if make is kv_page_stats:
        return max(rms_ratio(value["page_min"], value["k_cache"].min(1)), rms_ratio(value["page_max"], value["k_cache"].max(1)))
    if make is mla_index_topk:
        rows = value["keys"].reshape(-1, 132)
        scores = value["weights"][0] @ np.maximum(value["q"][0] @ decode(rows[:, :128], "f8e4m3").T, 0) * 0.01
        best, got = np.sort(scores)[-x["topk"]:], np.sort(scores[value["idx"][0]])
        return rms_ratio(got, best)
    if make in DENSE:
        if make is sparse_linear_attention:
            return rms_ratio(value["o"][0, 1, 77], softmax(value["q"][0, 1, 77], value["k"][0, 1], value["v"][0, 1]))
        return rms_ratio(value["o"][300, 1], softmax(value["q"][300, 1], value["k"][:301, 1], value["v"][:301, 1]))
    return None


# ---- rows

class KvCase:
    def __init__(self, bench, make, tokens):
        self.lib, self.make, self.op, self.device, self.tokens = bench.lib, make, op_of(make), bench.device, tokens
        args, self.operands, outputs, self.bytes = prepare(bench.lib, make, tokens)
        self.calls, self.output = [args], self.operands[outputs[0]]
        self.fields = {"case": f"{tokens}", "tokens": tokens}
        heads = 4 if make in DENSE else 0
        # Of those that skip, the operations are those of dense attention: what they are beside it is the speed-up.
        self.operations = 4 * DIM * heads * (tokens * tokens / (2 if make is estimated_sparse_attention else 1))
        if make in (bitmap_kv_attention, paged_attention):
            self.operations = 4 * DIM * 4 * HEADS * tokens
        elif make is mla_index_topk:
            self.operations = 2 * 64 * 128 * tokens
        # Chosen indices may differ where scores nearly agree; bytes of results round twice.
        self.bound = 0.05 if make in (kv_select, mla_index_topk, kv_merge) else 1e-2

    def check(self, lib):
        return (in_double if self.device == "cpu" else against_cpu)(lib, self.make, min(self.tokens, CHECKED_TOKENS[self.device]))

    def peers(self, bench):
        lib, x, result = self.lib, self.operands, []
        if self.make in DENSE:
            p = Problem(lib)
            args = (causal_attention if self.make is estimated_sparse_attention else attention)(p, self.tokens)[0]
            result.append(("dense", ("attention", lib.args("attention", **args)), None))
            if bench.device == "cpu":
                q, k, v = (bench.tensor(args[n]).transpose(0, 1).contiguous()[None] for n in "qkv")
                sdpa, causal = bench.torch.nn.functional.scaled_dot_product_attention, self.make is estimated_sparse_attention
                result.append(("sdpa", lambda i: sdpa(q, k, v, is_causal=causal), None))
        elif self.make is bitmap_kv_attention:
            args, whole, _, _ = prepare(lib, paged_attention, self.tokens)
            result.append(("dense", ("paged_attention", args), None))
            if bench.device == "cpu":
                k, v = (bench.tensor(whole[n]).view(1, -1, HEADS, DIM).transpose(1, 2).contiguous() for n in ("k_cache", "v_cache"))
                q = bench.tensor(whole["q"]).transpose(1, 2).contiguous()
                result.append(("sdpa", lambda i: bench.torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True), None))
        elif bench.device == "cpu" and self.make is kv_page_stats:
            cache = bench.tensor(x["k_cache"])
            result.append(("torch", lambda i: (cache.amin(1), cache.amax(1)), None))
        elif bench.device == "cpu" and self.make is bitmap_kv_compress:
            rows = bench.tensor(x["x"])
            result.append(("torch", lambda i: rows.gather(-1, rows.abs().topk(40, dim=-1, sorted=False).indices.sort(-1).values), None))
        elif bench.device == "cpu" and self.make is mla_index_topk:
            torch = bench.torch
            keys = torch.from_numpy(decode(x["keys"].get().reshape(-1, 132)[:, :128], "f8e4m3").astype(np.float32)).bfloat16()
            q, w = torch.from_numpy(decode(x["q"].get()[0], "f8e4m3").astype(np.float32)).bfloat16(), bench.tensor(x["weights"])[0]
            result.append(("torch", lambda i: (w @ torch.relu(q @ keys.T).float()).topk(x["topk"], sorted=False), None))
        return result


def main():
    p = parser(__doc__, 5)
    p.add_argument("--tokens", type=int)
    options = p.parse_args()
    bench = Bench("kv_cache", options)
    bench.lib.path = options.library
    for make in BYTES + DENSE:
        if bench.device == "cpu" and make in (paged_attention, kv_select, kv_merge, cca_qkv):
            continue  # no formula here to check them with; paged_attention is bench_attention.py's
        for tokens in [options.tokens] if options.tokens else TOKENS[bench.device][make in DENSE]:
            row = bench.measure(lambda: KvCase(bench, make, tokens), op_of(make), str(tokens))
            if row and "speed_over dense" in row:
                row["speed_up"] = row["speed_over dense"]
            if row and make is sparse_linear_attention:
                blocks = tokens // 64
                row["kept"] = -(-0.05 * blocks // 1) / blocks  # critical blocks; marginal ones have a linear form
            if row and make is estimated_sparse_attention:
                row["kept"] = float(bench.last.operands["kept"].get().sum() / (4 * (tokens // 64) * (tokens // 64 + 1)))  # of 2, 4, 6, .. blocks of keys
            if row and row.get("kept") and "speed_up" in row:
                row["bound"], row["of_bound"] = 1 / row["kept"], row["speed_up"] * row["kept"]
    bench.finish()


if __name__ == "__main__":
    main()
