#!/usr/bin/env python3
"""Times the expert MLP and its grouped products through the C ABI, on a GPU beside their limits and torch's grouped matmul.

    benchmarks/moe/bench_moe.py --library libculebra.so --output moe.json [--minutes 6] [--quick] [--layer NAME] [--shape E,k,D,I,T]

Calls lie in a graph; layers of less than 256 MB rotate over copies. A sample of rows is checked against sums in double first. --backend simt only checks the
results: take a small --shape. Routing is uniform, or skewed: expert e has weight 1 / (e + 1).
"""
import argparse
import ctypes as C
import json
import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemm"))
import culebra
from culebra import Library, Unsupported, decode, encode
from peers import Peers, launches_for, summary

LAYERS = {"mixtral": (8, 2, 4096, 14336), "qwen3-30b-a3b": (128, 8, 2048, 768), "deepseek-v3": (256, 8, 7168, 2048), "qwen3-next": (512, 10, 2048, 512)}
TOKENS = (1, 4, 8, 32, 128, 512, 1024, 4096, 16384)
STORAGES = ("half", "f8", "int4")
ROTATED_BYTES = 256 << 20
BASE_ROWS = 64  # of a matrix; the others repeat them
BOUNDS = {"half": 7.5e-3, "int4": 7.5e-3, "f8": 0.06}

culebra.ARGS["moe_mlp"] = culebra._args(
    "x w13 w13_scales w13_zeros w2 w2_scales w2_zeros b13 b2 weights ids logits route_bias y", ("experts", C.c_int32), ("group", C.c_int32),
    ("act", C.c_int32), ("alpha", C.c_float), ("limit", C.c_float), ("k", C.c_int32), ("score", C.c_int32), ("n_group", C.c_int32),
    ("topk_group", C.c_int32), ("renormalize", C.c_int32), ("n_shared", C.c_int32), ("scale", C.c_float))


class Matrices:
    """[E,N,K] in one storage: arrays by the argument's suffix, and one expert's numbers."""

    def __init__(self, lib, rng, storage, experts, n, k):
        rows = min(n, BASE_ROWS)
        self.scale = np.ones((rows, 1))
        if storage == "half":
            bits = encode(rng.standard_normal((rows, k)).astype(np.float32) / np.sqrt(k), "bf16")
            self.arrays, self.base = {"": lib.array("bf16", experts, n, k).put(bits)}, decode(bits, "bf16")
        elif storage == "f8":
            bits = encode(rng.standard_normal((rows, k)).astype(np.float32) * 64, "f8e4m3")
            scales = np.full((experts, -(-n // 128), -(-k // 128)), 1 / (64 * np.sqrt(k)), np.float32)
            self.arrays = {"": lib.array("f8e4m3", experts, n, k).put(bits), "_scales": lib.array("f32", *scales.shape).put(scales)}
            self.base = decode(bits, "f8e4m3") * float(scales.flat[0])
        else:
            codes = rng.integers(0, 16, (rows, k), dtype=np.uint8)
            scale = encode(np.full((rows, k // 128), 1 / (4.6 * np.sqrt(k)), np.float32), "bf16")
            self.arrays = {"": lib.array("u8", experts, n, k // 2).put(codes[:, ::2] | codes[:, 1::2] << 4),
                           "_scales": lib.array("bf16", experts, n, k // 128).put(scale)}
            self.base = (codes.astype(np.float64) - 8) * decode(scale, "bf16")[0, 0]
        self.n = n

    def numbers(self):
        return np.tile(self.base, (-(-self.n // len(self.base)), 1))[:self.n]

    def bytes(self):
        return sum(a.bytes for a in self.arrays.values())


class Layer:
    """One layer's call on `tokens` tokens; every expert has the same numbers, which no kernel can know."""

    def __init__(self, lib, storage, shape, tokens, skewed):
        self.lib, self.storage = lib, storage
        experts, k, width, inner = shape
        rng = np.random.default_rng(1)
        weight = 1 / np.arange(1, experts + 1) if skewed else np.ones(experts)
        # k different experts a token, with probabilities by weight: the largest of Gumbel variables.
        self.ids = np.argsort(-(np.log(weight) + rng.gumbel(size=(tokens, experts))), axis=1)[:, :k].astype(np.int32)
        x = encode(rng.standard_normal((tokens, width)).astype(np.float32), "bf16")
        self.x, self.weights = decode(x, "bf16"), rng.uniform(0, 1, (tokens, k)).astype(np.float32)
        self.w13, self.w2 = Matrices(lib, rng, storage, experts, 2 * inner, width), Matrices(lib, rng, storage, experts, width, inner)
        self.y = lib.array("bf16", tokens, width)
        fixed = dict(x=lib.array("bf16", tokens, width).put(x), weights=lib.array("f32", tokens, k).put(self.weights),
                     ids=lib.array("i32", tokens, k).put(self.ids), y=self.y, experts=STORAGES.index(storage), group=128, act=0)
        copies = [{f"{name}{suffix}": array for name, m in (("w13", self.w13), ("w2", self.w2)) for suffix, array in m.arrays.items()}]
        one = self.w13.bytes() + self.w2.bytes()
        while len(copies) * one < ROTATED_BYTES and lib.backend != "simt":
            copies.append({name: array.copy() for name, array in copies[0].items()})
        self.calls = [lib.args("moe_mlp", **fixed, **copy) for copy in copies]
        active = len(np.unique(self.ids))
        self.bytes = one * active // experts + 2 * self.x.size * 2
        self.operations = 6 * width * inner * tokens * k

    def check(self):
        self.lib.enqueue("moe_mlp", self.calls[0])
        self.lib.synchronize()
        rows = np.unique(np.linspace(0, len(self.x) - 1, 4).astype(int))
        gate, up = np.split(self.x[rows] @ self.w13.numbers().T, 2, axis=1)
        want = (gate / (1 + np.exp(-gate)) * up) @ self.w2.numbers().T * self.weights[rows].sum(axis=1, keepdims=True)
        ratio = float(np.sqrt(np.sum((decode(self.y.get()[rows], "bf16") - want) ** 2) / np.sum(want**2)))
        if not ratio <= BOUNDS[self.storage]:
            raise SystemExit(f"moe_mlp {self.storage}: rms ratio {ratio:.3g}")
        return ratio

    def time(self, repetitions):
        def graph(launches):
            return self.lib.capture(lambda: [self.lib.enqueue("moe_mlp", self.calls[i % len(self.calls)]) for i in range(launches)])
        once = graph(1)
        launches = launches_for(self.lib.time_graph(once), len(self.calls)) if self.lib.backend != "simt" else 1
        self.lib.destroy_graph(once)
        many = graph(launches)
        times = [self.lib.time_graph(many) / launches for _ in range(repetitions + 2)]
        self.lib.destroy_graph(many)
        return times[2:]


def torch_grouped(torch, peers, shape, ids, repetitions):
    """The two products alone, by torch's grouped matmul on rows in order: neither routing, gathering nor the sum."""
    if not hasattr(torch, "_grouped_mm"):
        return None
    experts, k, width, inner = shape
    counts = torch.bincount(torch.from_numpy(ids.reshape(-1).astype(np.int64)), minlength=experts)
    offsets = counts.cumsum(0).to(torch.int32).cuda()
    x = torch.randn(ids.size, width, device="cuda", dtype=torch.bfloat16)
    w13 = torch.randn(experts, 2 * inner, width, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    w2 = torch.randn(experts, width, inner, device="cuda", dtype=torch.bfloat16).transpose(1, 2)

    def call(_):
        gate, up = torch._grouped_mm(x, w13, offs=offsets).chunk(2, dim=1)
        torch._grouped_mm(torch.nn.functional.silu(gate) * up, w2, offs=offsets)
    return summary(peers.time(call, 1, repetitions))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "simt"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--quick", action="store_true", help="half experts, uniform routing")
    parser.add_argument("--layer", choices=LAYERS)
    parser.add_argument("--shape", help="E,k,D,I,T instead of the layers")
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()

    lib, peers = Library(options.library, options.backend), Peers(options.backend == "cuda", None)
    limits, end = peers.limits(), time.monotonic() + 60 * options.minutes
    works = [(name, shape, t) for name, shape in LAYERS.items() if options.layer in (None, name) for t in TOKENS]
    if options.shape:
        *shape, tokens = map(int, options.shape.split(","))
        works = [("shape", tuple(shape), tokens)]
    rows, left_out = [], []
    for storage in STORAGES[:1] if options.quick else STORAGES:
        for skewed in (False,) if options.quick else (False, True):
            for name, shape, tokens in works:
                label = f"{name} {storage} T {tokens} {'skewed' if skewed else 'uniform'}"
                if time.monotonic() > end:
                    left_out.append(label)
                    continue
                try:
                    layer = Layer(lib, storage, shape, tokens, skewed)
                    row = {"op": "moe_mlp", "layer": name, "experts": storage, "skewed": skewed, "tokens": tokens, "shape": shape,
                           "rms_ratio": layer.check(), "plan": lib.plan("moe_mlp", layer.calls[0])}
                    row.update(summary(layer.time(5 if options.quick else 9)))
                except Unsupported as reason:
                    left_out.append(f"{label}: {reason}")
                    continue
                ms = row["median_ms"]
                row.update(bytes=layer.bytes, operations=layer.operations, gb_s=layer.bytes / ms / 1e6, tflop_s=layer.operations / ms / 1e9)
                if limits:
                    row["limit_ms"] = max(layer.bytes / limits["bandwidth_gb_s"] / 1e6, layer.operations / limits["bf16_tflop_s"] / 1e9)
                    row["fraction_of_limit"] = row["limit_ms"] / ms
                ids = layer.ids
                del layer
                if peers.torch and storage == "half" and tokens >= 128:
                    peers.torch.cuda.empty_cache()
                    peer = torch_grouped(peers.torch, peers, shape, ids, 5)
                    if peer:
                        row["torch_grouped_products_ms"] = peer["median_ms"]
                rows.append(row)
                print(f"{label}: {ms:.4f} ms, {row['gb_s']:.0f} GB/s, {row['tflop_s']:.1f} TFLOP/s", file=sys.stderr)
    with open(options.output, "w") as file:
        json.dump({"benchmark": "moe", "commit": options.commit, "device": lib.info.name.decode(), "detail": lib.info.detail.decode(),
                   **peers.versions(), **limits, "left_out": left_out, "rows": rows}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
