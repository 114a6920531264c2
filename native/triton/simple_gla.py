"""Gated linear attention with one decay a head, in its recurrent form.

    S_t = exp(g_t) S_{t-1} + k_t v_t^T        S [key, value] in f32
    o_t = scale S_t^T q_t

q, k [batch, time, heads, KEY], v, o [batch, time, heads, value], g [batch, time, heads] f32 (the logarithm of the decay),
all compact; state [batch, heads, KEY, value] f32 is read as S_0 and left as S_T. One program a head and BLOCK_V columns of
the state, which stay in registers. Yang et al., Gated Linear Attention Transformers with Hardware-Efficient Training,
arXiv:2312.06635, with the scalar gate of Dao and Gu, arXiv:2405.21060.
"""
import triton
import triton.language as tl


@triton.jit
def simple_gla(q, k, v, g, state, o, time, heads, value, scale, KEY: tl.constexpr, BLOCK_V: tl.constexpr):
    column = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    head = tl.program_id(1) % heads
    batch = tl.program_id(1) // heads
    inside = column < value
    row = tl.arange(0, KEY)
    s_at = state + (tl.program_id(1).to(tl.int64) * KEY + row)[:, None] * value + column[None, :]
    s = tl.load(s_at, mask=inside[None, :], other=0.0)
    token = batch.to(tl.int64) * time * heads + head  # of [batch, time, heads]
    for _ in range(0, time):
        q_t = tl.load(q + token * KEY + row).to(tl.float32) * scale
        k_t = tl.load(k + token * KEY + row).to(tl.float32)
        v_t = tl.load(v + token * value + column, mask=inside, other=0.0).to(tl.float32)
        s = s * tl.exp(tl.load(g + token)) + k_t[:, None] * v_t[None, :]
        o_t = tl.sum(s * q_t[:, None], axis=0)
        tl.store(o + token * value + column, o_t.to(o.dtype.element_ty), mask=inside)
        token += heads
    tl.store(s_at, s, mask=inside[None, :])
