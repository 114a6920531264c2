"""Matrix product with bias and SiLU.

    c = silu(a b^T + bias),   silu(v) = v / (1 + exp(-v))

a [m, k], b [n, k], bias [n], c [m, n]; row strides, innermost stride 1. One program a tile of BLOCK_M x BLOCK_N of c, tiles
of GROUP_M rows together so that their part of b stays in the cache. Accumulates in f32. Any m, n, k: edges are masked.
"""
import triton
import triton.language as tl


@triton.jit
def matmul_bias_silu(a, b, bias, c, m, n, k, a_stride, b_stride, c_stride,
                     BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr):
    tile = tl.program_id(0)
    tiles_m = tl.cdiv(m, BLOCK_M)
    tiles_n = tl.cdiv(n, BLOCK_N)
    group = tile // (GROUP_M * tiles_n)
    first = group * GROUP_M
    rows = tl.minimum(tiles_m - first, GROUP_M)
    inside = tile % (GROUP_M * tiles_n)
    row = (first + inside % rows) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (inside // rows) * BLOCK_N + tl.arange(0, BLOCK_N)
    at = tl.arange(0, BLOCK_K)
    # Rows past the end read the first ones, whose products are not stored: no mask in the loop but that of k.
    a_at = a + (row % m).to(tl.int64)[:, None] * a_stride + at[None, :]
    b_at = b + (column % n).to(tl.int64)[None, :] * b_stride + at[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(0, tl.cdiv(k, BLOCK_K)):
        left = k - step * BLOCK_K
        sums = tl.dot(tl.load(a_at, mask=at[None, :] < left, other=0.0),
                      tl.load(b_at, mask=at[:, None] < left, other=0.0), sums)
        a_at += BLOCK_K
        b_at += BLOCK_K
    v = sums + tl.load(bias + column, mask=column < n, other=0.0).to(tl.float32)[None, :]
    v = v / (1.0 + tl.exp(-v))
    tl.store(c + row.to(tl.int64)[:, None] * c_stride + column[None, :], v.to(c.dtype.element_ty),
             mask=(row < m)[:, None] & (column < n)[None, :])
