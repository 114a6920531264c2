#!/usr/bin/env python3
"""Times sparse attention through the C ABI beside dense attention of the same shape, the bound of what skipping can gain, and peers.

    benchmarks/sparse_attention/bench_sparse_attention.py --library libculebra.so --output sparse_attention.json [--device cuda|cpu|simt] [--only OP]

`dense` is the library's own attention, `sdpa` torch's (on the cpu), flex_attention torch's with a block mask (--flex: it compiles for a minute),
fla its parallel_nsa (on a GPU, where it is installed). Results are checked first against attention in double on a sample of rows, and on the cpu
sdpa and flex_attention against ours. speed_up is over `dense`, bound what the share of visible pairs allows. simt only checks.
"""
import ctypes as C
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
from bench import Bench, parser, rms_ratio  # noqa: E402  (makes the modules of ../gemm importable)
import culebra  # noqa: E402
from culebra import decode, encode  # noqa: E402

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
    """q, k, v of one sequence in bf16, and dense attention on them. seen(t, kv_head): the keys that query t sees."""
    bound = 5e-3

    def __init__(self, lib, op, case, tokens, heads, kv_heads, dim, causal, shape=None, rows=16):
        self.lib, self.op, self.tokens, self.heads, self.kv_heads, self.dim = lib, op, tokens, heads, kv_heads, dim
        self.causal, self.rows, self.rng = causal, rows, np.random.default_rng(1)
        self.fields = {"case": case, "tokens": tokens, "heads": heads, "kv_heads": kv_heads, "dim": dim}
        lead = (1, *shape) if shape else (tokens,)

        def normal(h):
            return encode(self.rng.standard_normal((min(tokens, 4096), h, dim)).astype(np.float32), "bf16")
        self.q = lib.array("bf16", *lead, heads, dim).put(normal(heads))
        self.k = lib.array("bf16", *lead, kv_heads, dim).put(normal(kv_heads))
        self.v = lib.array("bf16", *lead, kv_heads, dim).put(normal(kv_heads))
        self.o = self.output = lib.array("bf16", *lead, heads, dim)
        self.cu = lib.array("i32", 2).put(np.array([0, tokens]))
        self.bytes = 2 * self.q.bytes + self.k.bytes + self.v.bytes
        self.flex_mask = None

    def ready(self, seen, kept, **args):
        """kept: the share of all pairs of a dense call that are visible."""
        self.seen, self.kept = seen, kept
        pairs = self.tokens * (self.tokens + 1) / 2 if self.causal else self.tokens**2
        self.operations = 4 * self.dim * self.heads * pairs * kept
        self.calls = [self.lib.args(self.op, q=self.q, k=self.k, v=self.v, o=self.o, **args)]
        return self

    def check(self, lib):
        lib.enqueue(self.op, self.calls[0])
        lib.synchronize()

        def flat(a, h):
            return decode(a.get(), "bf16").reshape(self.tokens, h, self.dim)
        q, k, v, o = flat(self.q, self.heads), flat(self.k, self.kv_heads), flat(self.v, self.kv_heads), flat(self.o, self.heads)
        got, wanted = [], []
        for t in self.rng.choice(self.tokens, min(self.rows, self.tokens), replace=False):
            h = int(self.rng.integers(self.heads))
            g = h * self.kv_heads // self.heads
            keys, want = self.seen(int(t), g), np.zeros(self.dim)
            if len(keys):
                s = k[keys, g] @ q[t, h] / np.sqrt(self.dim)
                w = np.exp(s - s.max())
                want = w @ v[keys, g] / w.sum()
            got.append(o[t, h])
            wanted.append(want)
        return rms_ratio(np.array(got), np.array(wanted))

    def peers(self, bench):
        lib = self.lib
        flat = [_flat(a, self.tokens, h, self.dim) for a, h in ((self.q, self.heads), (self.k, self.kv_heads), (self.v, self.kv_heads))]
        o = lib.array("bf16", self.tokens, self.heads, self.dim)  # the result of the sparse call stays
        dense = lib.args("attention", q=flat[0][0], k=flat[1][0], v=flat[2][0], cu_q=self.cu, cu_k=self.cu, o=o, causal=int(self.causal), window_left=-1,
                         window_right=-1)
        dense.views = flat
        result = [("dense", ("attention", dense), None)]
        if bench.device == "cpu":
            q, k, v = (bench.tensor(a, self.tokens, h, self.dim).transpose(0, 1).contiguous()[None]
                       for a, h in ((self.q, self.heads), (self.k, self.kv_heads), (self.v, self.kv_heads)))
            sdpa = bench.torch.nn.functional.scaled_dot_product_attention
            result.append(("sdpa", lambda i: sdpa(q, k, v, is_causal=self.causal, enable_gqa=self.heads != self.kv_heads), None))
            if self.flex_mask and bench.options.flex:
                result += flex_peer(bench, q, k, v, self.flex_mask)
        elif self.op == "nsa_attention":
            result += fla_peer(self.tokens, self.heads, self.kv_heads)
        return result


def _flat(array, tokens, heads, dim):
    """The same memory without the axes of a picture, as one sequence."""
    view = object.__new__(culebra.Array)
    view.library, view.pointer, view.shape = array.library, None, (tokens, heads, dim)
    view._shape = (C.c_int64 * 3)(*view.shape)
    view.tensor = culebra.Tensor(array.pointer, array.tensor.device_type, 0, 3, array.tensor.code, array.tensor.bits, 1, view._shape, None, 0)
    return view, array


_flex = []


def flex_peer(bench, q, k, v, mask):
    """torch's flex_attention with a mask that it knows in blocks of 128, compiled."""
    try:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
        if not _flex:
            _flex.append(bench.torch.compile(flex_attention, dynamic=False))
        blocks = create_block_mask(mask(bench.torch), None, None, q.shape[2], k.shape[2], device="cpu")
        last = [None]

        def call(i):
            last[0] = _flex[0](q, k, v, block_mask=blocks)
        call(0)
        return [("flex_attention", call, lambda: last[0][0].transpose(0, 1).double().numpy())]
    except Exception as failure:  # a peer's failure is its own
        bench.left_out.append(f"flex_attention: {str(failure).splitlines()[0]}")
        return []


def fla_peer(tokens, heads, kv_heads):
    try:
        import torch
        from fla.ops.nsa import parallel_nsa
    except ImportError:
        return []
    shape = (1, tokens)
    q = torch.randn(*shape, heads, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(*shape, kv_heads, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    gates = [torch.rand(*shape, heads, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    call = lambda i: parallel_nsa(q, k, v, g_cmp=gates[0], g_slc=gates[1], g_swa=gates[2], block_counts=16, block_size=64, window_size=512)
    return [("fla", call, None)]


def block_sparse(lib, tokens, heads):
    """Blocks of 64 x 64 and 128 x 128, one mask for all heads, some densities."""
    for block in (64, 128):
        for density in (.05, .1, .25, .5):
            def make(block=block, density=density):
                work = Work(lib, "block_sparse_attention", f"block {block}, density {density}", tokens, heads, heads, 128, False)
                n = -(-tokens // block)
                kept = max(1, round(density * n))
                columns = np.sort(np.argsort(work.rng.random((n, n)), axis=1)[:, :kept], axis=1)
                row_ptr = lib.array("i64", n + 1).put(np.arange(n + 1) * kept)
                col = lib.array("i32", n * kept).put(columns.reshape(-1))
                work.fields["density"] = kept / n

                def mask(torch):
                    table = torch.zeros(n, n, dtype=torch.bool)
                    table.scatter_(1, torch.from_numpy(columns.astype(np.int64)), True)
                    return lambda b, h, q, k: table[q // block, k // block]
                work.flex_mask = mask if block == 128 else None
                return work.ready(lambda t, g: np.concatenate([np.arange(b * block, min((b + 1) * block, tokens)) for b in columns[t // block]]),
                                  kept / n, cu_q=work.cu, cu_k=work.cu, row_ptr=row_ptr, col=col, block_q=block, block_k=block, head_map=1)
            yield f"block {block}, density {density}", make


def neighborhoods(lib, tokens, heads):
    """A line with windows and strides; on a GPU NATTEN's published cases, elsewhere a picture that is as large as fits."""
    cases = [("1-D", (tokens,), (max(tokens // share, 1),), (stride,)) for share in (4, 16) for stride in (1, max(tokens // 16, 1))][:3]
    cases += [("1-D", (tokens,), (max(tokens // 16, 1),), (max(tokens // 128, 1),))]
    if lib.backend == "cuda":
        cases += [("FLUX 256 x 256", (256, 256), (80, 80), (16, 16)), ("Hunyuan", (30, 48, 80), (18, 24, 24), (16, 8, 8)),
                  ("Hunyuan, stride 1", (30, 48, 80), (18, 24, 24), (1, 1, 1))]
    else:
        side = int(tokens**0.5)
        cases += [("2-D", (side, side), (max(side // 4, 1),) * 2, (stride,) * 2) for stride in (1, max(side // 8, 1))]
    for name, shape, window, stride in cases:
        case = f"{name} {shape} window {window} stride {stride}"

        def make(shape=shape, window=window, stride=stride, case=case):
            total = int(np.prod(shape))
            many = 24 if lib.backend == "cuda" and len(shape) > 1 else heads
            work = Work(lib, "neighborhood_attention", case, total, many, many, 128, False, shape, rows=4)

            def first_of(i, n, w, s):
                return max(0, min(min(int(i) // s * s + s // 2, n - 1) - w // 2, n - w))

            def seen(t, g):
                ranges = [first_of(i, n, w, s) + np.arange(w) for i, n, w, s in zip(np.unravel_index(t, shape), shape, window, stride)]
                return np.ravel_multi_index(np.meshgrid(*ranges, indexing="ij"), shape).reshape(-1)
            kept = float(np.prod([w / n for w, n in zip(window, shape)]))
            work.fields["density"] = kept
            if len(shape) == 1:
                n, w, s = shape[0], window[0], stride[0]

                def mask(torch):
                    firsts = torch.tensor([first_of(i, n, w, s) for i in range(n)])
                    return lambda b, h, q, k: (k >= firsts[q]) & (k < firsts[q] + w)
                work.flex_mask = mask
            work.ready(seen, kept, window_entries=len(shape), stride_entries=len(shape))
            for a in range(len(shape)):
                work.calls[0].window[a], work.calls[0].stride[a] = window[a], stride[a]
            return work
        yield case, make


def selected(lib, tokens, _):
    """The selected attention in both orders where they differ: G 1 to 16, 16 blocks of 64."""
    for group in (1, 2, 4, 8, 16) if lib.backend == "cuda" else (1, 4, 16):
        for order, name in ((1, "query"), (2, "kv")) if lib.backend != "cpu" else ((1, "query"),):
            def make(group=group, order=order, name=name):
                kv_heads = 4 if lib.backend == "cuda" else 1
                work = Work(lib, "nsa_selected_attention", f"G {group}, order {name}", tokens, kv_heads * group, kv_heads, 128, True)
                n, block = 16, 64
                current = np.arange(tokens) // block
                idx = np.full((kv_heads, tokens, n), -1, np.int32)
                for g in range(kv_heads):
                    drawn = (work.rng.random((tokens, n)) * (current[:, None] + 1)).astype(np.int32)
                    drawn[:, 0], drawn[:, 1] = 0, current
                    drawn.sort(axis=1)
                    drawn[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = -1
                    idx[g] = drawn
                visible = np.where(idx >= 0, np.minimum(block, np.arange(tokens)[None, :, None] + 1 - idx * block), 0).sum()
                kept = float(visible / kv_heads / (tokens * (tokens + 1) / 2))
                work.fields["density"] = kept
                idx_array = lib.array("i32", kv_heads, tokens, n).put(idx)
                return work.ready(lambda t, g: np.concatenate([np.arange(b * block, min((b + 1) * block, t + 1)) for b in idx[g, t] if b >= 0]),
                                  kept, cu_q=work.cu, cu_k=work.cu, idx=idx_array, block=block, order=order)
            yield f"{tokens} G {group}, order {name}", make


def whole(lib, tokens, _):
    """nsa_attention, mean dialect: compression, selection, window."""
    for heads, kv_heads in ((64, 4), (16, 4)) if lib.backend == "cuda" else ((16, 1),):
        def make(heads=heads, kv_heads=kv_heads):
            work = Work(lib, "nsa_attention", f"mean, {heads} heads of {kv_heads}", tokens, heads, kv_heads, 128, True)
            gates = lib.array("f32", tokens, heads, 3).put(np.tile(np.array([0, 0, 1], np.float32), (min(tokens, 4096), heads, 1)))
            # Of the arithmetic: compressed keys, 16 blocks of 64, 512 of the window. The gates leave the window alone, for the check.
            rows = np.arange(tokens)
            pairs = np.minimum(rows + 1, 512) + np.minimum(rows + 1, 1024) + rows // 64
            return work.ready(lambda t, g: np.arange(max(0, t - 511), t + 1), float(pairs.sum() / (tokens * (tokens + 1) / 2)),
                              cu_q=work.cu, cu_k=work.cu, gates=gates, dialect=0, l=64, d=64, block=64, topk=16, init=1, local=2, window=512)
        yield f"{tokens} mean, {heads} heads of {kv_heads}", make


CASES = {"block_sparse_attention": block_sparse, "neighborhood_attention": neighborhoods, "nsa_selected_attention": selected,
         "nsa_attention": whole}
LENGTHS = {"cuda": {"block_sparse_attention": (32768,), "neighborhood_attention": (32768,), "nsa_selected_attention": (16384, 65536),
                    "nsa_attention": (4096, 16384, 65536)},
           "cpu": {"block_sparse_attention": (4096,), "neighborhood_attention": (4096,), "nsa_selected_attention": (8192,), "nsa_attention": (4096, 16384)},
           "simt": dict.fromkeys(CASES, (256,))}
HEADS = {"cuda": {"block_sparse_attention": 16, "neighborhood_attention": 1}, "cpu": {"block_sparse_attention": 4, "neighborhood_attention": 4},
         "simt": {"block_sparse_attention": 1, "neighborhood_attention": 1}}


def main():
    p = parser(__doc__, 5)
    p.add_argument("--tokens", type=int, help="instead of the table's lengths")
    p.add_argument("--flex", action="store_true", help="torch's flex_attention as a peer on the cpu")
    options = p.parse_args()
    bench = Bench("sparse_attention", options)
    for op, cases in CASES.items():
        for tokens in (options.tokens,) if options.tokens else LENGTHS[bench.device][op]:
            for what, make in cases(bench.lib, tokens, HEADS[bench.device].get(op)):
                row = bench.measure(make, op, what)
                if row and "dense median_ms" in row:
                    work_pairs = row["tokens"] * (row["tokens"] + 1) / 2 if op.startswith("nsa") else row["tokens"] ** 2
                    kept = row["operations"] / (4 * row["dim"] * row["heads"] * work_pairs)
                    row.update(kept=kept, bound=1 / kept, speed_up=row["speed_over dense"], of_bound=row["speed_over dense"] * kept)
    bench.finish()


if __name__ == "__main__":
    main()
