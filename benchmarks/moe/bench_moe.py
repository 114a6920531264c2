#!/usr/bin/env python3
"""Times moe_mlp, moe_route with moe_align, and moe_dispatch with moe_combine, through the C ABI beside their limits and torch.

    benchmarks/moe/bench_moe.py --library libculebra.so --output moe.json [--device cuda|cpu|simt] [--layer NAME] [--tokens 1,8] [--experts half,f8,int4]

A call's experts are others than the last one's: the calls rotate over routes, as far as the layer has experts. The bytes are those of the experts
that a call selects. Results are checked against sums in f32 over the exact weights first, and for bf16 experts the whole of them against torch's: on
the cpu it goes over the experts with tokens, one product of bf16 matrices each, on a GPU it has the grouped products of grouped_peer.py. The cpu's
layers are the models' with the widths that LAYERS_CPU says, so that they fit a small machine; simt only checks.
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import grouped_peer  # noqa: E402
from bench import Bench, parser  # noqa: E402  (makes the modules of ../gemm importable)
from culebra import decode, encode  # noqa: E402

LAYERS = {  # experts, experts a token, width, expert width
    "Mixtral-8x7B": (8, 2, 4096, 14336),
    "Qwen3-30B-A3B": (128, 8, 2048, 768),
    "DeepSeek-V3": (256, 8, 7168, 2048),
    "Qwen3-Next-80B-A3B": (512, 10, 2048, 512),
}
LAYERS_CPU = {
    "Mixtral-8x7B / 2 / 4": (8, 2, 2048, 3584),
    "Qwen3-30B-A3B": (128, 8, 2048, 768),
    "DeepSeek-V3 / 4 / 4": (256, 8, 1792, 512),
    "Qwen3-Next-80B-A3B / 2": (512, 10, 1024, 512),
}
SMALL = (6, 2, 256, 128)
TOKENS = {"cuda": (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384), "cpu": (1, 8, 64, 512, 2048), "simt": (3, 20)}
SKEWS = {"cuda": (0, 1), "cpu": (0, 1, 2), "simt": (0, 1)}
BOUNDS = {"half": 0.0075, "f8": 0.06, "int4": 0.0075}
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


def distinct_slots(lib):
    return 16 if lib.backend != "simt" else 1


class Mlp:
    """One call of moe_mlp over a layer's experts, on routes that rotate."""

    def __init__(self, lib, name, layer, storage, prepared, tokens, skew):
        experts, k, width, inner = layer
        (self.w13, self.w13_numbers), (self.w2, self.w2_numbers) = prepared
        self.op, self.lib, self.storage, self.bound, self.bf16_products = "moe_mlp", lib, storage, BOUNDS[storage], storage == "half"
        self.rng = rng = np.random.default_rng(tokens)
        self.x_bits = encode(rng.standard_normal((tokens, width), np.float32), "bf16")
        self.x, self.y = lib.array("bf16", tokens, width).put(self.x_bits), lib.array("bf16", tokens, width)
        self.output = self.y
        self.shares = rng.uniform(0, 1, (tokens, k)).astype(np.float32)
        self.share_array = lib.array("f32", tokens, k).put(self.shares)
        expert_bytes = sum(w.bytes for w in [*self.w13.values(), *self.w2.values()]) / experts
        self.calls, self.ids, selected = [], [], []
        while not self.calls or (len(self.calls) < distinct_slots(lib) and sum(selected) * expert_bytes < 1 << 30):
            ids = routes(rng, tokens, experts, k, skew)
            selected.append(len(np.unique(ids)))
            arguments = dict(x=self.x, y=self.y, weights=self.share_array, ids=lib.array("i32", tokens, k).put(ids),
                             experts=("half", "f8", "int4").index(storage), group=GROUP, act=0)
            arguments.update({"w13" + part: w for part, w in self.w13.items()}, **{"w2" + part: w for part, w in self.w2.items()})
            self.calls.append(lib.args("moe_mlp", **arguments))
            self.ids.append(ids)
        self.bytes = expert_bytes * float(np.mean(selected)) + self.x.bytes + self.y.bytes
        self.operations = 6 * inner * width * tokens * k
        counts = np.bincount(self.ids[0].reshape(-1), minlength=experts)
        self.fields = dict(layer=name, experts=storage, tokens=tokens, skew=skew, selected=float(np.mean(selected)),
                           most_loaded_over_mean=float(counts.max() / counts.mean()))

    def check(self, lib):
        lib.enqueue("moe_mlp", self.calls[0])
        lib.synchronize()
        sample = self.rng.choice(len(self.x_bits), min(len(self.x_bits), 4), replace=False)
        want = reference(decode(self.x_bits[sample], "bf16").astype(np.float32), self.w13_numbers, self.w2_numbers, self.ids[0][sample],
                         self.shares[sample])
        got = decode(self.y.get()[sample], "bf16")
        return float(np.sqrt(np.sum((got - want) ** 2) / np.sum(want**2)))

    def peers(self, bench):
        """On the cpu as a model's code in torch runs it: for each expert with tokens, its rows gathered, two products, rows weighted and added."""
        if self.storage != "half":
            return []
        torch = bench.torch
        if bench.device == "cuda":
            routes = [torch.from_numpy(i.astype(np.int64)).cuda() for i in self.ids]
            return grouped_peer.peer(torch, *(grouped_peer.on_gpu(torch, a) for a in (self.x, self.w13[""], self.w2[""], self.share_array)), routes)
        silu, linear = torch.nn.functional.silu, torch.nn.functional.linear
        x, shares, w13, w2 = (bench.tensor(a) for a in (self.x, self.share_array, self.w13[""], self.w2[""]))
        ids, last = [torch.from_numpy(i.astype(np.int64)) for i in self.ids], [None]

        def call(i):
            chosen = ids[i % len(ids)]
            slots = chosen.reshape(-1)
            order = torch.argsort(slots, stable=True)
            experts, counts = torch.unique_consecutive(slots[order], return_counts=True)
            y, at = torch.zeros(x.shape), 0
            for e, n in zip(experts.tolist(), counts.tolist()):
                mine = order[at:at + n]
                at += n
                rows = mine // chosen.shape[1]
                gate, up = linear(x[rows], w13[e]).chunk(2, -1)
                y.index_add_(0, rows, linear(silu(gate) * up, w2[e]).float() * shares.view(-1)[mine, None])
            last[0] = y.bfloat16()
        return [("torch_bf16", call, lambda: last[0].double().numpy())]


class Routing:
    """moe_route, then moe_align."""
    op, bound = "moe_route + moe_align", 0

    def __init__(self, lib, name, layer, tokens):
        experts, k = layer[:2]
        rng, array, block = np.random.default_rng(tokens), lib.array, 64
        self.lib, self.k, self.fields, self.operations = lib, k, dict(layer=name, tokens=tokens), 0
        self.logits = logits = array("f32", tokens, experts).put(rng.standard_normal((tokens, experts), np.float32))
        shares, ids = array("f32", tokens, k), array("i32", tokens, k)
        capacity = -(-(tokens * k + experts * (block - 1)) // block) * block
        self.inverse = array("i32", tokens * k)
        self.calls = [(lib.args("moe_route", logits=logits, weights=shares, ids=ids, k=k, n_group=1, topk_group=1, renormalize=1, scale=1),
                       lib.args("moe_align", ids=ids, sorted=array("i32", capacity), block_expert=array("i32", capacity // block),
                                offsets=array("i64", experts + 1), inverse=self.inverse, n_padded=array("i32", 1), experts=experts,
                                local_experts=experts, block=block))]
        self.bytes = logits.bytes + 5 * ids.bytes + 4 * capacity

    def enqueue(self, i):
        for op, args in zip(("moe_route", "moe_align"), self.calls[i]):
            self.lib.enqueue(op, args)

    def check(self, lib):
        """0 if the inverse is a permutation."""
        self.enqueue(0)
        lib.synchronize()
        return float(sorted(self.inverse.get()) != list(range(self.inverse.shape[0])))

    def peers(self, bench):
        if bench.device != "cpu":
            return []
        logits, torch = bench.tensor(self.logits), bench.torch

        def call(i):
            shares, ids = torch.topk(torch.softmax(logits, -1), self.k)
            shares = shares / shares.sum(-1, keepdim=True)
            order = torch.argsort(ids.reshape(-1), stable=True)
            return shares, torch.argsort(order), torch.bincount(ids.reshape(-1), minlength=logits.shape[1]).cumsum(0)
        return [("torch", call, None)]


class Dispatch:
    """moe_dispatch for eight ranks with equal runs of experts, then moe_combine of the very rows: all of an exchange but its messages."""
    op, bound, ranks = "moe_dispatch + moe_combine", 5e-3, 8

    def __init__(self, lib, name, layer, tokens):
        experts, self.k, width, _ = layer
        rng, array = np.random.default_rng(tokens), lib.array
        self.lib, self.fields = lib, dict(layer=name, tokens=tokens, ranks=self.ranks)
        self.x_bits, self.ids = encode(rng.standard_normal((tokens, width), np.float32), "bf16"), routes(rng, tokens, experts, self.k, 0)
        self.owners = (np.arange(experts) * self.ranks // experts).astype(np.int32)
        capacity = int(np.bincount(self.owners[self.ids].reshape(-1), minlength=self.ranks).max())
        self.x, self.y = array("bf16", tokens, width).put(self.x_bits), array("bf16", tokens, width)
        self.share_array = array("f32", tokens, self.k).put(rng.uniform(0, 1, (tokens, self.k)).astype(np.float32))
        rows, inverse = array("bf16", self.ranks * capacity, width), array("i32", tokens * self.k)
        numbers = (np.arange(experts) - np.searchsorted(self.owners, self.owners)).astype(np.int32)
        self.output = self.y
        self.calls = [(lib.args("moe_dispatch", x=self.x, ids=array("i32", tokens, self.k).put(self.ids),
                                expert_rank=array("i32", experts).put(self.owners), expert_local=array("i32", experts).put(numbers), rows=rows,
                                row_ids=array("i32", self.ranks * capacity), inverse=inverse, counts=array("i32", self.ranks)),
                       lib.args("moe_combine", rows=rows, inverse=inverse, weights=self.share_array, y=self.y, k=self.k, dispatched=1))]
        self.bytes, self.operations = 2 * (1 + self.k) * self.x.bytes, 2 * tokens * self.k * width

    def enqueue(self, i):
        for op, args in zip(("moe_dispatch", "moe_combine"), self.calls[i]):
            self.lib.enqueue(op, args)

    def check(self, lib):
        self.enqueue(0)
        lib.synchronize()
        want = decode(self.x_bits, "bf16") * self.share_array.get().astype(np.float64).sum(1, keepdims=True)
        return float(np.sqrt(np.sum((decode(self.y.get(), "bf16") - want) ** 2) / np.sum(want**2)))

    def peers(self, bench):
        torch = bench.torch
        own = bench.tensor if bench.device == "cpu" else lambda array: grouped_peer.on_gpu(torch, array)
        x, shares, last = own(self.x), own(self.share_array), [None]
        ids, owners = (torch.from_numpy(a.astype(np.int64)).to(x.device) for a in (self.ids, self.owners))

        def call(_):
            order = torch.argsort(owners[ids.reshape(-1)], stable=True)
            rows = x[order // self.k]
            inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
            last[0] = (rows[inverse].view(*ids.shape, -1).float() * shares[..., None]).sum(1).bfloat16()
        return [("torch", call, lambda: last[0].double().cpu().numpy())]


def combinations(device, tokens, skews, experts):
    """(storage, tokens, skew): on the cpu skews at one number of tokens alone, and every other number for what is not half."""
    for storage in experts:
        for t in tokens if device != "cpu" or storage == "half" else tokens[::2]:
            for skew in skews:
                if device != "cpu" or skew == 0 or t == 512 and storage == "half":
                    yield storage, t, skew


def main():
    p = parser(__doc__, 6)
    p.add_argument("--layer", choices={**LAYERS, **LAYERS_CPU})
    p.add_argument("--tokens", help="in place of the table's")
    p.add_argument("--experts", default="half,f8,int4")
    p.add_argument("--skew", help="of the routes, in place of the table's: 0 is even")
    options = p.parse_args()
    bench = Bench("moe", options)
    lib, device = bench.lib, bench.device
    tokens = [int(t) for t in options.tokens.split(",")] if options.tokens else TOKENS[device]
    skews = [float(s) for s in options.skew.split(",")] if options.skew else SKEWS[device]
    layers = {"cuda": LAYERS, "cpu": {**LAYERS_CPU, **{options.layer: LAYERS.get(options.layer)}} if options.layer in LAYERS else LAYERS_CPU,
              "simt": {"small": SMALL}}[device]
    for name, layer in layers.items():
        if options.layer and device != "simt" and name != options.layer:
            continue
        experts, k, width, inner = layer
        for t in tokens if device != "cpu" else tokens[::2]:
            bench.measure(lambda: Routing(lib, name, layer, t), Routing.op, f"{name} {t}")
            bench.measure(lambda: Dispatch(lib, name, layer, t), Dispatch.op, f"{name} {t}")
        of_storage, prepared = None, None
        for storage, t, skew in combinations(device, tokens, skews, options.experts.split(",")):
            if not bench.wants("moe_mlp", f"{name} {storage} {t} {skew}"):
                continue
            if storage != of_storage:
                rng, of_storage, prepared, bench.last = np.random.default_rng(1), storage, None, None
                prepared = weights(lib, rng, storage, experts, 2 * inner, width), weights(lib, rng, storage, experts, width, inner)
            bench.measure(lambda: Mlp(lib, name, layer, storage, prepared, t, skew), "moe_mlp", f"{name} {storage} {t} {skew}")
        prepared = bench.last = None
    bench.finish()


if __name__ == "__main__":
    main()
