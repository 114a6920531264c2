"""Scaled softmax of rows, in one pass.

    y[i] = exp(scale x[i] - m) / sum_j exp(scale x[j] - m),   m = max_j scale x[j]

x, y [rows, n] with a row stride each; y may be x. One program a row; n <= BLOCK. Accumulates in f32.
"""
import triton
import triton.language as tl


@triton.jit
def softmax(x, y, x_stride, y_stride, n, scale, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < n
    v = tl.load(x + row * x_stride + at, mask=inside, other=-float("inf")).to(tl.float32) * scale
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(y + row * y_stride + at, (e / tl.sum(e, axis=0)).to(y.dtype.element_ty), mask=inside)
