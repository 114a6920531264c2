"""Runs each kernel under Triton's interpreter (TRITON_INTERPRET=1) beside a numpy f64 oracle, and prints what was seen.

The ratio is the root mean square of the differences over that of the oracle; it must stay within the tolerance of the
element type, and every result is the same bits when it is computed again. compile.py runs this.
"""
import json
import pathlib
import sys

import numpy as np
import torch
import triton

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from add_rms_norm import add_rms_norm
from matmul_bias_silu import matmul_bias_silu
from simple_gla import simple_gla
from softmax import softmax

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = {"fp16": 2e-3, "bf16": 5e-3}
random = np.random.default_rng(20250607)


def tensor(dtype, *shape):
    return torch.from_numpy(random.standard_normal(shape)).to(dtype)


def exact(t):
    return t.to(torch.float64).numpy()


def poisoned(dtype, *shape):
    return torch.full(shape, float("nan"), dtype=dtype)


def run_add_rms_norm(dtype, rows, n):
    # Rows lie apart, and what lies between them must stay as it was.
    x, residual = tensor(dtype, rows, n + 3), tensor(dtype, rows, n + 3)
    weight, total, y = tensor(dtype, n), poisoned(dtype, rows, n + 3), poisoned(dtype, rows, n + 3)
    add_rms_norm[(rows,)](x, residual, weight, total, y, n + 3, n, 1e-6, BLOCK=triton.next_power_of_2(n))
    r = exact((x + residual)[:, :n])
    expected = r / np.sqrt((r * r).mean(axis=1, keepdims=True) + 1e-6) * exact(weight)
    assert torch.isnan(y[:, n:]).all() and torch.isnan(total[:, n:]).all(), "written past the row"
    return [(total[:, :n], r), (y[:, :n], expected)]


def run_softmax(dtype, rows, n):
    x, y = 4 * tensor(dtype, rows, n + 5), poisoned(dtype, rows, n + 1)
    softmax[(rows,)](x, y, n + 5, n + 1, n, 0.125, BLOCK=triton.next_power_of_2(n))
    e = exact(x[:, :n]) * 0.125
    e = np.exp(e - e.max(axis=1, keepdims=True))
    assert torch.isnan(y[:, n:]).all(), "written past the row"
    return [(y[:, :n], e / e.sum(axis=1, keepdims=True))]


def run_matmul_bias_silu(dtype, m, n, k):
    a, b, bias, c = tensor(dtype, m, k), tensor(dtype, n, k + 2), tensor(dtype, n), poisoned(dtype, m, n + 7)
    block = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32, "GROUP_M": 2}
    matmul_bias_silu[(triton.cdiv(m, 32) * triton.cdiv(n, 32),)](a, b, bias, c, m, n, k, k, k + 2, n + 7, **block)
    v = exact(a) @ exact(b[:, :k]).T + exact(bias)
    assert torch.isnan(c[:, n:]).all(), "written past the row"
    return [(c[:, :n], v / (1 + np.exp(-v)))]


def run_simple_gla(dtype, batch, time, heads, key, value):
    q, k, v = tensor(dtype, batch, time, heads, key), tensor(dtype, batch, time, heads, key), tensor(dtype, batch, time, heads, value)
    g = -tensor(torch.float32, batch, time, heads).abs()
    state, o = tensor(torch.float32, batch, heads, key, value), poisoned(dtype, batch, time, heads, value)
    s, expected, scale = exact(state).copy(), np.empty((batch, time, heads, value)), key**-0.5
    for t in range(time):
        s = s * np.exp(exact(g)[:, t, :, None, None]) + exact(k)[:, t, :, :, None] * exact(v)[:, t, :, None, :]
        expected[:, t] = scale * np.einsum("bhkv,bhk->bhv", s, exact(q)[:, t])
    simple_gla[(triton.cdiv(value, 16), batch * heads)](q, k, v, g, state, o, time, heads, value, scale, KEY=key, BLOCK_V=16)
    return [(o, expected), (state, s)]


SHAPES = {
    "add_rms_norm": (run_add_rms_norm, [(1, 1), (3, 100), (5, 1024)]),
    "softmax": (run_softmax, [(1, 1), (3, 100), (5, 1024)]),
    "matmul_bias_silu": (run_matmul_bias_silu, [(1, 1, 1), (33, 70, 45), (96, 64, 128)]),
    "simple_gla": (run_simple_gla, [(1, 1, 1, 16, 1), (2, 9, 3, 64, 40)]),
}


def main():
    global random
    results = []
    for kernel, (run, shapes) in SHAPES.items():
        for name, dtype in TYPES.items():
            if (kernel, name) == ("matmul_bias_silu", "bf16"):
                continue  # the interpreter of Triton 3.6 multiplies bf16 as integers (compile.py has no such variant)
            for shape in shapes:
                seeded = []
                for _ in range(2):
                    random = np.random.default_rng(20250607)
                    seeded.append(run(dtype, *shape))
                worst = 0.0
                for (got, expected), (again, _) in zip(*seeded):
                    assert torch.equal(got, again), f"{kernel} {name} {shape}: other bits the second time"
                    scale = np.sqrt((expected * expected).mean())
                    worst = max(worst, float(np.sqrt(((exact(got) - expected) ** 2).mean()) / scale))
                assert worst <= TOLERANCE[name], f"{kernel} {name} {shape}: {worst} is more than {TOLERANCE[name]}"
                results.append({"kernel": kernel, "dtype": name, "shape": "x".join(map(str, shape)), "rms_ratio": float(f"{worst:.2e}"),
                                "tolerance": TOLERANCE[name]})
    print(json.dumps({"interpreter": "triton " + triton.__version__, "results": results}, indent=1))


if __name__ == "__main__":
    main()
