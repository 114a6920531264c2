#!/usr/bin/env python3
"""Times conv_fft through the C ABI beside the memory's limit and torch.fft (cuFFT).

    benchmarks/linear_attention/bench_conv_fft.py --library libculebra.so --output conv_fft.json [--backend cuda|cpu|simt] [--shape B,T,C,L]

Calls lie in a graph and rotate over 256 MB of x; results are checked against numpy's transforms in double first.
"""
import argparse
import importlib.util
import json
import os
import sys

import numpy as np

from cases import BOUNDS, ROTATED_BYTES  # first: it makes the modules of ../gemm importable
import culebra
from culebra import Library, decode, encode

import peers as linear_peers

_gemm = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemm", "peers.py")
_spec = importlib.util.spec_from_file_location("gemm_peers", _gemm)
gemm_peers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gemm_peers)

culebra.ARGS["conv_fft"] = culebra._args("x filter skip y")

SHAPES = [(8, 4096, 4096, taps) for taps in (16, 64, 128, 256, 512, 768, 1024, 4096)]
SHAPES += [(8, 1024, 4096, 1024), (2, 16384, 4096, 16384), (1, 65536, 1024, 65536)]


class Case:
    def __init__(self, lib, shape, dtype):
        B, T, C_, L = shape
        random = np.random.default_rng(1)
        self.lib, self.shape, self.dtype = lib, shape, dtype
        rows = min(B * T, max(1, (1 << 22) // C_))
        self.x = lib.array(dtype, B, T, C_).put(encode(random.standard_normal((rows, C_), np.float32), dtype))
        self.filter = lib.array("f32", C_, L).put(random.standard_normal((min(C_, max(1, (1 << 22) // L)), L), np.float32) * np.float32(L**-0.5))
        self.y = lib.array(dtype, B, T, C_)
        copies = [self.x]
        while len(copies) * self.x.bytes < ROTATED_BYTES and len(copies) < 64 and lib.backend == "cuda":
            copies.append(self.x.copy())
        self.calls = [lib.args("conv_fft", x=x, filter=self.filter, y=self.y) for x in copies]
        self.bytes = self.x.bytes + self.y.bytes + self.filter.bytes

    def check(self):
        """rms ratio of the last row's first and last channels."""
        B, T, C_, L = self.shape
        self.lib.enqueue("conv_fft", self.calls[0])
        self.lib.synchronize()
        channels = [0, C_ - 1]
        x = decode(self.x.get()[-1][:, channels], self.dtype)
        h = self.filter.get()[channels].astype(np.float64).T
        points = 1 << (T + L).bit_length()
        want = np.fft.irfft(np.fft.rfft(x, points, axis=0) * np.fft.rfft(h, points, axis=0), points, axis=0)[:T]
        got = decode(self.y.get()[-1][:, channels], self.dtype)
        ratio = float(np.sqrt(np.sum((got - want) ** 2) / np.sum(want**2)))
        if not ratio <= BOUNDS[self.dtype]:
            raise SystemExit(f"conv_fft {self.shape} {self.dtype}: rms ratio {ratio:.3g}")
        return ratio


def torch_ms(peers, shape, dtype, repetitions):
    """The usual way: transforms along T in f32."""
    torch = peers.torch
    if not torch:
        return None
    B, T, C_, L = shape
    try:
        x = torch.randn(B, T, C_, device="cuda", dtype={"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype])
        h = torch.randn(C_, L, device="cuda")

        def call():
            spectrum = torch.fft.rfft(x.transpose(1, 2).float(), n=2 * T) * torch.fft.rfft(h, n=2 * T)
            return torch.fft.irfft(spectrum, n=2 * T)[..., :T].to(x.dtype).transpose(1, 2).contiguous()

        call()  # plans are made outside of the capture
        return peers._time(call, repetitions)
    except RuntimeError as reason:
        print(f"torch.fft {shape}: {reason}", file=sys.stderr)
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu", "simt"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--shape", help="B,T,C,L instead of the table")
    parser.add_argument("--dtype", default="bf16,f32")
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()

    lib = Library(options.library, options.backend)
    peers = linear_peers.Peers(options.backend == "cuda")
    limits = gemm_peers.Peers(options.backend == "cuda", None).limits()
    rows = []
    for shape in [tuple(map(int, options.shape.split(",")))] if options.shape else SHAPES:
        for dtype in options.dtype.split(","):
            case = Case(lib, shape, dtype)
            row = dict(zip(("B", "T", "C", "L"), shape), dtype=dtype, rms_ratio=case.check(), plan=lib.plan("conv_fft", case.calls[0]))

            def graph_of(count):
                return lib.capture(lambda: [lib.enqueue("conv_fft", case.calls[i % len(case.calls)]) for i in range(count)])

            graph = graph_of(1)
            once = lib.time_graph(graph)
            lib.destroy_graph(graph)
            launches = gemm_peers.launches_for(once, len(case.calls)) if lib.backend == "cuda" else 1
            graph = graph_of(launches)
            row.update(gemm_peers.summary([lib.time_graph(graph) / launches for _ in range(12)][2:]))
            lib.destroy_graph(graph)
            ms = row["median_ms"]
            row.update(bytes=case.bytes, gb_s=case.bytes / ms / 1e6)
            if limits:
                row["fraction_of_bandwidth"] = case.bytes / limits["bandwidth_gb_s"] / 1e6 / ms
            del case
            peer = torch_ms(peers, shape, dtype, 10)
            if peer:
                row["torch_fft_ms"], row["speed_over_torch_fft"] = peer, peer / ms
            rows.append(row)
            print(f"{shape} {dtype}: {ms:.4f} ms, {row['gb_s']:.1f} GB/s, rms {row['rms_ratio']:.1e}: {row['plan']}", file=sys.stderr)
    results = {"benchmark": "conv_fft", "commit": options.commit, "device": lib.info.name.decode(), "detail": lib.info.detail.decode(),
               **peers.versions(), **limits, "rows": rows}
    with open(options.output, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
