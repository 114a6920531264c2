#!/usr/bin/env python3
"""What rounding to each weight format changes: the error column of docs/quantized-weights.md, as a Markdown table.

    benchmarks/gemm/quantization_error.py --library libculebra.so [--device cpu|cuda|simt] [--check]

512 x 4096 normally distributed weights in f32, symmetric unless zero points are named, by the library's quantize_weights (integers, scales in bf16) and
quantize_activations (f8e4m3). The error is the root mean square of what changes, relative to the weights. --check: fails unless each figure is the
one that the document states, to two digits.
"""
import argparse
import ctypes as C
import os
import re
import sys

import numpy as np

import culebra
from culebra import Library, decode, encode

N, K = 512, 4096
culebra.ARGS["quantize_weights"] = culebra._args("w q scales zeros", *((f, C.c_int32) for f in ("bits", "group", "symmetric", "reserved0")))
PER_TOKEN, PER_BLOCK128 = 0, 1


def integers(lib, w, bits, group, zero_points=False):
    groups = 1 if group < 0 else K // group
    q, scales = lib.array("u8", N, K), lib.array("bf16", N, groups)
    zeros = lib.array("u8", N, groups) if zero_points else None
    tensors = {"zeros": zeros} if zero_points else {}
    lib.enqueue("quantize_weights", lib.args("quantize_weights", w=lib.array("f32", N, K).put(w), q=q, scales=scales, bits=bits, group=group,
                                             symmetric=int(not zero_points), **tensors))
    lib.synchronize()
    spread = lambda x: np.repeat(x, K // groups, axis=1)
    zero = spread(zeros.get().astype(np.float64)) if zero_points else 2.0 ** (bits - 1)
    return (q.get() - zero) * spread(decode(scales.get(), "bf16"))


def bytes_of(lib, w, dtype, mode):
    q, scales = lib.array(dtype, N, K), lib.array("f32", N, 1 if mode == PER_TOKEN else K // 128)
    lib.enqueue("quantize_activations", lib.args("quantize_activations", x=lib.array("f32", N, K).put(w), q=q, scales=scales, mode=mode))
    lib.synchronize()
    return decode(q.get(), dtype) * np.repeat(scales.get().astype(np.float64), K // scales.shape[1], axis=1)


# What the document calls it, and how it is computed.
FORMATS = [
    ("bf16", lambda lib, w: decode(encode(w, "bf16"), "bf16")),
    ("int8, a scale a channel", lambda lib, w: integers(lib, w, 8, -1)),
    ("int8, a scale a group of 128", lambda lib, w: integers(lib, w, 8, 128)),
    ("f8e4m3, a scale a channel", lambda lib, w: bytes_of(lib, w, "f8e4m3", PER_TOKEN)),
    ("f8e4m3, a scale a block of 128", lambda lib, w: bytes_of(lib, w, "f8e4m3", PER_BLOCK128)),
    ("int8 activations, a scale a token", lambda lib, w: bytes_of(lib, w, "i8", PER_TOKEN)),
    ("int6, groups of 128", lambda lib, w: integers(lib, w, 6, 128)),
    ("int4, a scale a channel", lambda lib, w: integers(lib, w, 4, -1)),
    ("int4, groups of 128", lambda lib, w: integers(lib, w, 4, 128)),
    ("int4, groups of 128, zero points", lambda lib, w: integers(lib, w, 4, 128, True)),
    ("int4, groups of 32", lambda lib, w: integers(lib, w, 4, 32)),
]


def stated(document):
    """name -> the figure that the document's list has for it, in per cent."""
    return {name.strip(): float(value) for name, value in re.findall(r"^\| ([^|]+) \| ([\d.]+) % \|$", document, re.M)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "simt"))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    lib = Library(options.library, options.device)
    w = np.random.default_rng(1).standard_normal((N, K), np.float32)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "quantized-weights.md")) as file:
        document = stated(file.read())
    wrong = 0
    print("| rounding | error |\n|---|---|")
    for name, rounded in FORMATS:
        error = 100 * float(np.sqrt(np.mean((rounded(lib, w) - w) ** 2) / np.mean(w.astype(np.float64) ** 2)))
        figure = f"{error:.2g}"
        print(f"| {name} | {figure} % |")
        if options.check and document.get(name) != float(figure):
            wrong += 1
            print(f"docs/quantized-weights.md states {document.get(name)} for {name}", file=sys.stderr)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
