#!/usr/bin/env python3
"""Times attention through the C ABI beside its limits and torch's scaled_dot_product_attention.

    benchmarks/attention/bench_attention.py --library libculebra.so --output attention.json [--device cuda|cpu|simt] [--quick] [--only OP]

Keys and values rotate over 256 MB. A few rows of every result are checked against sums in double first, and on the cpu the whole result against
torch's. On a GPU calls lie in graphs; on the cpu ours and torch's run in turn. Gates are those of the family's README. simt only checks.
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
from bench import ROTATED_BYTES, Bench, parser  # noqa: E402  (makes the modules of ../gemm importable)
import culebra  # noqa: E402
from culebra import decode, encode  # noqa: E402

_i32, _f32 = culebra._i32, culebra._f32
_SCORES = (("scale", _f32), ("softcap", _f32), ("causal", _i32), ("window_left", _i32), ("window_right", _i32))
culebra.ARGS.update({
    "attention": culebra._args("q k v cu_q cu_k sink o lse", *_SCORES, ("reserved0", _i32)),
    "paged_attention": culebra._args("q k_cache v_cache k_scale v_scale page_table kv_len sink o lse", *_SCORES, ("split_kv_tokens", _i32)),
    "mla_attention": culebra._args("q cache page_table kv_len indices topk_len sink o lse", ("scale", _f32), ("dv", _i32), ("causal", _i32),
                                   ("split_kv_tokens", _i32)),
})

# d, causal, length, heads, dtype, window; batch, length, heads, kv_heads, dtype; batch, length, heads
PREFILL = {
    "cuda": [(d, causal, length, max(16, 2048 // d), "bf16", -1) for d in (64, 128, 256) for causal in (True, False) for length in (1024, 4096, 16384)],
    "cpu": [(128, True, length, 8, "bf16", -1) for length in (512, 1024, 2048, 4096, 8192)] +
           [(128, False, 1024, 8, "bf16", -1), (128, False, 4096, 8, "bf16", -1), (64, True, 4096, 8, "bf16", -1), (128, True, 4096, 8, "f32", -1)] +
           [(128, True, length, 8, "bf16", 512) for length in (4096, 8192)],
    "simt": [(64, True, 160, 2, "bf16", -1), (128, False, 96, 2, "bf16", -1), (64, True, 160, 2, "bf16", 40)],
}
DECODE = {
    "cuda": [(batch, length, heads, kv_heads, dtype) for batch, length in ((1, 131072), (8, 32768), (64, 4096), (128, 4096))
             for heads, kv_heads in ((32, 8), (8, 8), (40, 8)) for dtype in ("bf16", "f8e4m3")],
    "cpu": [(batch, length, 32, 8, "bf16") for batch, length in ((1, 1024), (1, 4096), (1, 16384), (1, 65536), (16, 8192))] +
           [(1, 16384, 8, 8, "bf16"), (1, 16384, 40, 8, "bf16"), (1, 16384, 32, 8, "f8e4m3"), (16, 8192, 32, 8, "f8e4m3")],
    "simt": [(2, 64, 6, 2, "bf16"), (2, 64, 6, 2, "f8e4m3")],
}
LATENT = {
    "cuda": [(batch, length, heads) for batch, length in ((1, 32768), (64, 4096), (128, 4096)) for heads in (16, 128)],
    "cpu": [(1, 16384, 16), (16, 4096, 16), (1, 16384, 128)],
    "simt": [(1, 64, 3)],
}
# The figure's field, gate, stretch.
GATES = {("attention", "d128 causal 16384"): ("tflop_s", 550, 650)}
DECODE_GATE = ("fraction_of_bandwidth", 0.80, 0.90)  # of caches of 256 MB and more
BOUNDS = {"f32": 1e-5, "bf16": 5e-3}


def values(rng, dtype, *shape):
    return encode(rng.standard_normal(shape, np.float32), dtype)


def softmax_row(q, k, v, scale):
    s = k @ q * scale
    w = np.exp(s - s.max())
    return w @ v / w.sum()


def copies_of(lib, size):
    return 1 if lib.backend == "simt" else min(64, max(1, -(-ROTATED_BYTES // size)))


def heads_first(tensor):
    """[.., tokens, heads, d] as [.., heads, tokens, d], in torch's favourite order."""
    return tensor.transpose(-2, -3).contiguous()


class Prefill:
    """One sequence of `length` tokens; `window` tokens before a row's own are seen, or all."""

    def __init__(self, lib, d, causal, length, heads, dtype, window):
        self.op = "attention"
        name = f"d{d} {'causal' if causal else 'full'} {length}" + (f" window {window}" if window >= 0 else "")
        self.fields = {"case": name, "dtype": dtype, "length": length, "heads": heads, "dim": d, "window": window}
        self.bound, self.window = BOUNDS[dtype], window
        rng = np.random.default_rng(1)
        size = 4 if dtype == "f32" else 2
        self.shape, self.causal, self.d, self.dtype = (length, heads, d), causal, d, dtype
        self.q = lib.array(dtype, *self.shape).put(values(rng, dtype, *self.shape))
        pairs = [values(rng, dtype, *self.shape) for _ in range(2)]
        self.keys = [(lib.array(dtype, *self.shape).put(pairs[0]), lib.array(dtype, *self.shape).put(pairs[1]))
                     for _ in range(copies_of(lib, 2 * size * length * heads * d))]
        cu = lib.array("i32", 2).put(np.array([0, length]))
        self.o = self.output = lib.array(dtype, *self.shape)
        self.calls = [lib.args("attention", q=self.q, k=k, v=v, cu_q=cu, cu_k=cu, o=self.o, causal=int(causal), window_left=window, window_right=-1)
                      for k, v in self.keys]
        rows = np.arange(length)
        visible = int(np.sum(np.minimum(rows + 1, window + 1) if window >= 0 else rows + 1)) if causal else length * length
        self.operations = 4 * d * heads * visible
        self.bytes = 4 * size * length * heads * d

    def check(self, lib):
        lib.enqueue(self.op, self.calls[0])
        lib.synchronize()
        q, k, v, o = (decode(x.get(), self.dtype) for x in (self.q, *self.keys[0], self.o))
        worst = 0
        for row in (0, 1, self.shape[0] // 2, self.shape[0] - 1):
            first = max(0, row - self.window) if self.window >= 0 else 0
            seen = row + 1 if self.causal else self.shape[0]
            ref = softmax_row(q[row, 1], k[first:seen, 1], v[first:seen, 1], self.d**-0.5)
            worst = max(worst, float(np.sqrt(np.mean((o[row, 1] - ref) ** 2) / np.mean(ref**2))))
        return worst

    def peers(self, bench):
        torch, sdpa = bench.torch, bench.torch.nn.functional.scaled_dot_product_attention
        length, heads, d = self.shape
        if bench.device == "cuda":
            q, k, v = (torch.randn(1, heads, length, d, device="cuda", dtype=torch.bfloat16) for _ in range(3))
            return [("sdpa", lambda i: sdpa(q, k, v, is_causal=self.causal), None)] if self.window < 0 else []
        q = heads_first(bench.tensor(self.q))[None]
        pairs = [tuple(heads_first(bench.tensor(x))[None] for x in pair) for pair in self.keys]
        mask = None
        if self.window >= 0:
            rows = torch.arange(length)
            distance = rows[:, None] - rows[None]
            mask = (distance >= 0) & (distance <= self.window)
        last = [None]

        def call(i):
            k, v = pairs[i % len(pairs)]
            last[0] = sdpa(q, k, v, attn_mask=mask, is_causal=self.causal and mask is None)
        return [("sdpa", call, lambda: last[0][0].transpose(0, 1).double().numpy())]


class Decode:
    """One new token a sequence over pages of 16 in random order, heads of 128."""

    def __init__(self, lib, batch, length, heads, kv_heads, dtype):
        self.op = "paged_attention"
        rng, page, d = np.random.default_rng(2), 16, 128
        pages, columns = batch * length // page, length // page
        size = 1 if dtype == "f8e4m3" else 2
        cache_bytes = 2 * batch * length * kv_heads * d * size
        self.fields = {"case": f"b{batch} kv{length} h{heads}/{kv_heads} {dtype}", "dtype": dtype, "batch": batch, "length": length, "heads": heads,
                       "kv_heads": kv_heads, "kv_bytes": cache_bytes}
        self.copies = copies_of(lib, cache_bytes)
        some = values(rng, dtype, min(pages, 4096), page, kv_heads, d)
        self.caches = [tuple(lib.array(dtype, pages, page, kv_heads, d).put(some) for _ in range(2)) for _ in range(self.copies)]
        self.order = rng.permutation(pages).astype(np.int32).reshape(batch, columns)
        self.q, self.o = lib.array("bf16", batch, 1, heads, d), lib.array("bf16", batch, 1, heads, d)
        self.output, self.batch = self.o, batch
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

    def peers(self, bench):
        """On the cpu: torch on a cache without pages, as it likes it best. It has no f8 caches."""
        if bench.device != "cpu" or self.dtype == "f8e4m3":
            return []
        torch, sdpa = bench.torch, bench.torch.nn.functional.scaled_dot_product_attention
        order = torch.from_numpy(self.order.reshape(-1))

        def whole(cache):
            x = bench.tensor(cache).index_select(0, order)
            return heads_first(x.view(self.batch, -1, *x.shape[2:]))
        pairs = [tuple(whole(x) for x in pair) for pair in self.caches]
        q, last = heads_first(bench.tensor(self.q)), [None]

        def call(i):
            k, v = pairs[i % len(pairs)]
            last[0] = sdpa(q, k, v, enable_gqa=self.group > 1)
        return [("sdpa", call, lambda: last[0].transpose(1, 2).double().numpy())]


class Latent:
    """One new token a sequence over a bf16 latent cache, pages of 64 in order."""

    def __init__(self, lib, batch, length, heads):
        self.op, self.fields = "mla_attention", {"case": f"b{batch} kv{length} h{heads}", "batch": batch, "length": length, "heads": heads}
        rng, page = np.random.default_rng(3), 64
        pages, columns = batch * length // page, length // page
        self.bytes = 2 * batch * length * 576
        self.copies = copies_of(lib, self.bytes)
        some = values(rng, "bf16", min(pages, 1024), page, 576)
        self.caches = [lib.array("bf16", pages, page, 576).put(some) for _ in range(self.copies)]
        self.q, self.o = lib.array("bf16", batch, 1, heads, 576).put(values(rng, "bf16", batch, 1, heads, 576)), lib.array("bf16", batch, 1, heads, 512)
        table = lib.array("i32", batch, columns).put(np.arange(pages).reshape(batch, columns))
        lengths = lib.array("i32", batch).put(np.full(batch, length))
        self.calls = [lib.args(self.op, q=self.q, cache=c, page_table=table, kv_len=lengths, o=self.o, dv=512, causal=1) for c in self.caches]
        self.output, self.batch = self.o, batch
        self.operations, self.columns = 2 * batch * length * heads * (576 + 512), columns

    def check(self, lib):
        lib.enqueue(self.op, self.calls[0])
        lib.synchronize()
        rows = decode(self.caches[0].get()[:self.columns], "bf16").reshape(-1, 576)
        ref = softmax_row(decode(self.q.get(), "bf16")[0, 0, 1], rows, rows[:, :512], 576**-0.5)
        o = decode(self.o.get(), "bf16")[0, 0, 1]
        return float(np.sqrt(np.mean((o - ref) ** 2) / np.mean(ref**2)))

    def peers(self, bench):
        if bench.device != "cpu":
            return []
        caches = [bench.tensor(x).view(self.batch, 1, -1, 576) for x in self.caches]
        q, last = bench.tensor(self.q).view(self.batch, 1, -1, 576), [None]  # all heads share the one of the cache: they are its queries

        def call(i):
            k = caches[i % len(caches)]
            last[0] = bench.torch.nn.functional.scaled_dot_product_attention(q, k, k[..., :512])
        return [("sdpa", call, lambda: last[0].double().numpy())]


def main():
    options = parser(__doc__, 6).parse_args()
    bench = Bench("attention", options)
    works = [(kind, op, shape) for kind, op, table in ((Prefill, "attention", PREFILL), (Decode, "paged_attention", DECODE), (Latent, "mla_attention", LATENT))
             for shape in table[bench.device]]
    for kind, op, shape in works:
        row = bench.measure(lambda: kind(bench.lib, *shape), op, str(shape))
        if not row or bench.device != "cuda":
            continue
        gate = GATES.get((op, row["case"])) or (DECODE_GATE if op == "paged_attention" and row["bytes"] >= ROTATED_BYTES else None)
        if gate and gate[0] in row:
            row.update(figure=gate[0], gate=gate[1], stretch=gate[2], reached=row[gate[0]] >= gate[1])
    bench.finish()


if __name__ == "__main__":
    main()
