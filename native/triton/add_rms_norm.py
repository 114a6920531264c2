"""Residual addition and RMS normalization in one pass over a row.

    r = x + residual                       (stored, rounded to the element type)
    y = r * rsqrt(mean(r^2) + eps) * weight

x, residual, sum, y [rows, n] with one row stride; weight [n]. One program a row; n <= BLOCK. The mean is taken of the
stored, rounded sum, accumulated in f32. Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467.
"""
import triton
import triton.language as tl


@triton.jit
def add_rms_norm(x, residual, weight, sum, y, stride, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * stride
    at = tl.arange(0, BLOCK)
    inside = at < n
    a = tl.load(x + row + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(residual + row + at, mask=inside, other=0.0).to(tl.float32)
    stored = (a + b).to(sum.dtype.element_ty)
    tl.store(sum + row + at, stored, mask=inside)
    r = stored.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(r * r, axis=0) / n + eps)
    w = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row + at, (r * scale * w).to(y.dtype.element_ty), mask=inside)
