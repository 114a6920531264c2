#!/usr/bin/env python3
"""Times moe_mlp, and moe_route with moe_align, through the C ABI beside their limits.

    benchmarks/moe/bench_moe.py --library libculebra.so --output moe.json [--backend cuda|cpu|simt] [--layer NAME] [--tokens 1,8]
                                [--experts half,f8,int4] [--bandwidth GB/S] [--peak TFLOP/S]
    benchmarks/moe/bench_moe.py --library libculebra.so --backend simt --small --output moe.json      # checks the results alone

A call's experts are others than the last one's: the calls of a graph rotate over routes, as far as the layer has experts. The bytes are those of
the experts that a call selects. Results are checked against sums in f32 over the exact weights first. On a GPU the calls lie in a graph; a figure is
the time of a replay over its calls.
"""
import argparse
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemm"))
from culebra import Library, decode, encode  # noqa: E402
from peers import launches_for, summary  # noqa: E402

LAYERS = {  # experts, experts a token, width, expert width
    "Mixtral-8x7B": (8, 2, 4096, 14336),
    "Qwen3-30B-A3B": (128, 8, 2048, 768),
    "DeepSeek-V3": (256, 8, 7168, 2048),
    "Qwen3-Next-80B-A3B": (512, 10, 2048, 512),
}
SMALL = (6, 2, 256, 128)
TOKENS = (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384)
BASE_EXPERTS = 3  # of which all others are repetitions: a reference costs little, and no kernel can know
GROUP = 128


def weights(lib, rng, storage, experts, n, k):
    """What the operator takes, and the first experts' numbers."""
    size = k**-0.5
    if storage == "half":
        bits = encode((rng.standard_normal((BASE_EXPERTS, n, k), np.float32) * size), "bf16")
        return {"": lib.array("bf16", experts, n, k).put(bits)}, decode(bits, "bf16").astype(np.float32)
    if storage == "f8":
        bits = encode(rng.standard_normal((BASE_EXPERTS, n, k), np.float32) * 50, "f8e4m3")
        scales = (rng.uniform(0.5, 1.5, (BASE_EXPERTS, -(-n // 128), -(-k // 128))) * size / 50).astype(np.float32)
        numbers = decode(bits, "f8e4m3").astype(np.float32) * np.repeat(np.repeat(scales, 128, 1), 128, 2)[:, :n, :k]
        return {"": lib.array("f8e4m3", experts, n, k).put(bits),
                "_scales": lib.array("f32", experts, *scales.shape[1:]).put(scales)}, numbers
    codes = rng.integers(0, 256, (BASE_EXPERTS, n, k // 2), dtype=np.uint8)
    scales = encode((rng.uniform(0.5, 1.5, (BASE_EXPERTS, n, -(-k // GROUP))) * size / 4).astype(np.float32), "bf16")
    q = np.stack([codes & 15, codes >> 4], axis=-1).reshape(BASE_EXPERTS, n, k).astype(np.float32) - 8
    numbers = q * np.repeat(decode(scales, "bf16").astype(np.float32), GROUP, 2)[:, :, :k]
    return {"": lib.array("u8", experts, n, k // 2).put(codes), "_scales": lib.array("bf16", *((experts,) + scales.shape[1:])).put(scales)}, numbers


def routes(rng, tokens, experts, k, skew):
    """ids [tokens, k], distinct in a row; skew: the probabilities of experts fall as 1 / rank^skew."""
    chances = 1 / np.arange(1, experts + 1) ** skew
    keys = np.log(chances / chances.sum())[rng.permutation(experts)] + rng.gumbel(size=(tokens, experts))
    return np.argsort(-keys, axis=1)[:, :k].astype(np.int32)


def reference(x, w13, w2, ids, shares):
    y = np.zeros_like(x)
    for t in range(len(x)):
        for e, share in zip(ids[t] % BASE_EXPERTS, shares[t]):
            gate, up = np.split(w13[e] @ x[t], 2)
            y[t] += share * (w2[e] @ (gate / (1 + np.exp(-gate)) * up))
    return y


class Timer:
    def __init__(self, lib, repetitions):
        self.lib, self.repetitions = lib, repetitions

    def __call__(self, enqueue, calls):
        def graph_of(count):
            return self.lib.capture(lambda: [enqueue(i % calls) for i in range(count)])
        graph = graph_of(1)
        once = self.lib.time_graph(graph)
        self.lib.destroy_graph(graph)
        count = 1 if self.lib.backend == "simt" else launches_for(once, calls)
        graph = graph_of(count)
        times = [self.lib.time_graph(graph) / count for _ in range(self.repetitions + 2)]
        self.lib.destroy_graph(graph)
        return summary(times[2:])


def measure_mlp(lib, timer, options, name, layer, storage, prepared, tokens, skew):
    experts, k, width, inner = layer
    (w13, w13_numbers), (w2, w2_numbers) = prepared
    rng = np.random.default_rng(tokens)
    x_bits = encode(rng.standard_normal((tokens, width), np.float32), "bf16")
    x, y = lib.array("bf16", tokens, width).put(x_bits), lib.array("bf16", tokens, width)
    shares = rng.uniform(0, 1, (tokens, k)).astype(np.float32)
    share_array = lib.array("f32", tokens, k).put(shares)
    expert_bytes = sum(w.bytes for w in [*w13.values(), *w2.values()]) / experts
    calls, selected = [], []
    while not calls or (len(calls) < 16 and sum(selected) * expert_bytes < 1 << 30 and lib.backend != "simt"):
        ids = routes(rng, tokens, experts, k, skew)
        selected.append(len(np.unique(ids)))
        arguments = dict(x=x, y=y, weights=share_array, ids=lib.array("i32", tokens, k).put(ids), experts=("half", "f8", "int4").index(storage),
                         group=GROUP, act=0)
        arguments.update({"w13" + part: w for part, w in w13.items()}, **{"w2" + part: w for part, w in w2.items()})
        calls.append((lib.args("moe_mlp", **arguments), ids))
    lib.enqueue("moe_mlp", calls[0][0])
    lib.synchronize()
    sample = rng.choice(tokens, min(tokens, 4), replace=False)
    want = reference(decode(x_bits[sample], "bf16").astype(np.float32), w13_numbers, w2_numbers, calls[0][1][sample], shares[sample])
    got = decode(y.get()[sample], "bf16")
    ratio = float(np.sqrt(np.sum((got - want) ** 2) / np.sum(want**2)))
    if not ratio <= (0.06 if storage == "f8" else 0.0075):
        raise SystemExit(f"moe_mlp {name} {storage} T {tokens}: rms ratio {ratio:.3g}")
    total = expert_bytes * float(np.mean(selected)) + x.bytes + y.bytes
    row = dict(op="moe_mlp", layer=name, experts=storage, tokens=tokens, skew=skew, selected=float(np.mean(selected)), rms_ratio=ratio, bytes=total,
               operations=6 * inner * width * tokens * k, plan=lib.plan("moe_mlp", calls[0][0]))
    row.update(timer(lambda i: lib.enqueue("moe_mlp", calls[i][0]), len(calls)))
    return with_limit(row, options)


def measure_routing(lib, timer, options, name, layer, tokens):
    experts, k = layer[:2]
    rng = np.random.default_rng(tokens)
    array = lib.array
    logits = array("f32", tokens, experts).put(rng.standard_normal((tokens, experts), np.float32))
    shares, ids = array("f32", tokens, k), array("i32", tokens, k)
    block = 64
    capacity = -(-(tokens * k + experts * (block - 1)) // block) * block
    inverse = array("i32", tokens * k)
    route = lib.args("moe_route", logits=logits, weights=shares, ids=ids, k=k, n_group=1, topk_group=1, renormalize=1, scale=1)
    align = lib.args("moe_align", ids=ids, sorted=array("i32", capacity), block_expert=array("i32", capacity // block),
                     offsets=array("i64", experts + 1), inverse=inverse, n_padded=array("i32", 1), experts=experts, local_experts=experts, block=block)

    def enqueue(_):
        lib.enqueue("moe_route", route)
        lib.enqueue("moe_align", align)
    enqueue(0)
    lib.synchronize()
    if sorted(inverse.get()) != list(range(tokens * k)):
        raise SystemExit(f"moe_align {name} T {tokens}: the inverse is no permutation")
    row = dict(op="moe_route + moe_align", layer=name, tokens=tokens, operations=0, bytes=logits.bytes + 5 * ids.bytes + 4 * capacity)
    row.update(timer(enqueue, 1))
    return with_limit(row, options)


def with_limit(row, options):
    ms = row["median_ms"]
    row.update(gb_s=row["bytes"] / ms / 1e6, tflop_s=row["operations"] / ms / 1e9)
    if options.bandwidth:
        memory = row["bytes"] / options.bandwidth / 1e6
        arithmetic = row["operations"] / options.peak / 1e9 if options.peak else 0
        row.update(limit="memory" if memory >= arithmetic else "arithmetic", limit_ms=max(memory, arithmetic))
        row["fraction_of_limit"] = row["limit_ms"] / ms
    print(json.dumps({key: row[key] for key in row if key not in ("plan",)}), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu", "simt"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--layer", choices=LAYERS)
    parser.add_argument("--tokens", default=",".join(map(str, TOKENS)))
    parser.add_argument("--experts", default="half,f8,int4")
    parser.add_argument("--skew", default="0,1", help="of the routes: 0 is even")
    parser.add_argument("--bandwidth", type=float, default=0, help="GB/s as measured on this device")
    parser.add_argument("--peak", type=float, default=0, help="TFLOP/s of the products as measured on this device")
    parser.add_argument("--small", action="store_true", help="a layer that an emulation can compute")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()
    lib = Library(options.library, options.backend)
    timer = Timer(lib, 1 if lib.backend == "simt" else options.repetitions)
    layers = {"small": SMALL} if options.small else {name: shape for name, shape in LAYERS.items() if options.layer in (None, name)}
    tokens = [3, 20] if options.small else [int(t) for t in options.tokens.split(",")]
    rows = []
    for name, layer in layers.items():
        experts, k, width, inner = layer
        rows += [measure_routing(lib, timer, options, name, layer, t) for t in tokens]
        for storage in options.experts.split(","):
            rng = np.random.default_rng(1)
            prepared = weights(lib, rng, storage, experts, 2 * inner, width), weights(lib, rng, storage, experts, width, inner)
            for t in tokens:
                for skew in map(float, options.skew.split(",")):
                    rows.append(measure_mlp(lib, timer, options, name, layer, storage, prepared, t, skew))
            del prepared
    result = dict(device=lib.info.name.decode(), commit=options.commit, bandwidth_gb_s=options.bandwidth, peak_tflop_s=options.peak, rows=rows)
    with open(options.output, "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
