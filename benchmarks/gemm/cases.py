"""One case for every operator of the family: operands that rotate past the caches, what must move, what must come out.

Weights repeat their first 256 rows, so that a reference in double costs little on any shape; no kernel can know.
"""
import numpy as np

from culebra import decode, encode

BASE_ROWS = 256
ROTATED_BYTES = 256 << 20
BOUNDS = {"f32": 1e-5, "f16": 2e-3, "bf16": 5e-3}


class Case:
    """`calls`: the same work on operands that no cache holds. `check()` compares a sample of the results."""

    def __init__(self, lib, op, operands, m, n, k, weights, others, arguments, sample, operations=None):
        self.lib, self.op, self.operands, self.m, self.n, self.k = lib, op, operands, m, n, k
        weight_bytes = sum(w.bytes for w in weights.values())
        self.bytes = weight_bytes + sum(o.bytes for o in others)
        self.operations = 2 * m * n * k if operations is None else operations
        copies = [weights]
        while len(copies) * weight_bytes < ROTATED_BYTES and lib.backend != "simt":  # whose times mean nothing
            copies.append({name: w.copy() for name, w in weights.items()})
        self.calls = [lib.args(op, **arguments, **copy) for copy in copies]
        self.sample = sample

    def check(self):
        self.lib.enqueue(self.op, self.calls[0])
        self.lib.synchronize()
        got, want, bound = self.sample()
        ratio = np.sqrt(np.sum((got - want) ** 2) / max(np.sum(want**2), 1e-300))
        if not ratio <= bound:
            raise SystemExit(f"{self.op} M {self.m} N {self.n} K {self.k}: rms ratio {ratio:.3g} is beyond {bound:.3g}")
        return float(ratio)


def _rows(rng, rows, k, dtype, scale=1.0):
    return encode((rng.standard_normal((min(rows, BASE_ROWS), k)) * scale).astype(np.float32), dtype)


def _product(rng, a, w, c, c_dtype, n):
    """The sample of a product: a [m,k] and the first rows of w in double, c an array."""
    def sample():
        rows = rng.choice(len(a), min(len(a), 16), replace=False)
        columns = rng.choice(n, min(n, 256), replace=False)
        return decode(c.get()[np.ix_(rows, columns)], c_dtype), a[rows] @ w[columns % len(w)].T, BOUNDS[c_dtype]
    return sample


def _activations(lib, rng, m, k, dtype="f16"):
    bits = encode(rng.standard_normal((m, k)).astype(np.float32), dtype)
    return lib.array(dtype, m, k).put(bits), decode(bits, dtype)


def _integers(rng, n, k, bits, sparse=False):
    """Codes whose zero point is 2^(bits-1)."""
    q = rng.integers(0, 1 << bits, (min(n, BASE_ROWS), k), dtype=np.uint8)
    if sparse:  # two of each four are the zero point
        order = np.argsort(rng.random((len(q), k // 4, 4)), axis=2)
        np.put_along_axis(q.reshape(len(q), k // 4, 4), order[:, :, :2], 8, axis=2)
    return q


def _packed(op, bits, sparse=False, byte_operand=False):
    def make(lib, m, n, k, group=128, c_dtype="f16"):
        rng = np.random.default_rng(1)
        codes = _integers(rng, n, k, bits, sparse)
        zero = 1 << (bits - 1)
        signed = op in ("w6a16_gemm", "w6a8_gemm")
        stored = (codes.astype(np.int16) - zero).astype(np.int8) if signed else codes
        s = encode(rng.uniform(0.5, 1.5, (len(codes), k // group)).astype(np.float32) / (1 << bits), "f16")
        q, scales = lib.array("i8" if signed else "u8", n, k).put(stored), lib.array("f16", n, k // group).put(s)
        full = np.ascontiguousarray(np.tile(stored, (-(-n // len(stored)), 1))[:n]) if sparse else None
        packed, packed_scales, packed_group = lib.pack(q, scales, bits, group, int(byte_operand), int(sparse), full)
        q.free()
        w = (codes.astype(np.float64) - zero) * np.repeat(decode(s, "f16"), group, axis=1)
        c = lib.array(c_dtype, m, n)
        arguments = dict(c=c, n=n, k=k)
        if byte_operand:
            x = rng.integers(-127, 128, (m, k)).astype(np.int8)
            row_scale = rng.uniform(0.5, 1.5, m).astype(np.float32) / 127
            a, a_scale = lib.array("i8", m, k).put(x), lib.array("f32", m).put(row_scale)
            values = x * row_scale[:, None].astype(np.float64)
            arguments.update(a_scale=a_scale)
        else:
            a, values = _activations(lib, rng, m, k)
            arguments.update(packed_group=packed_group)
        return Case(lib, op, f"{a.dtype} x {'2:4 ' if sparse else ''}int{bits} g{group}", m, n, k, dict(packed=packed, packed_scales=packed_scales),
                    [a, c], dict(arguments, a=a), _product(rng, values, w, c, c_dtype, n))
    return make


def _gemm(lib, m, n, k, dtype="bf16"):
    rng = np.random.default_rng(2)
    w = _rows(rng, n, k, dtype)
    a, values = _activations(lib, rng, m, k, dtype)
    b, c = lib.array(dtype, n, k).put(w), lib.array(dtype, m, n)
    return Case(lib, "gemm", dtype, m, n, k, dict(b=b), [a, c], dict(a=a, c=c), _product(rng, values, decode(w, dtype), c, dtype, n))


def _fp8_gemm(lib, m, n, k):
    rng = np.random.default_rng(3)
    blocks = k // 128
    w, x = _rows(rng, n, k, "f8e4m3"), _rows(rng, m, k, "f8e4m3")
    x = np.tile(x, (-(-m // len(x)), 1))[:m]
    w_scale = rng.uniform(0.5, 1.5, (min(n, BASE_ROWS) // 128, blocks)).astype(np.float32)
    x_scale = rng.uniform(0.5, 1.5, (m, blocks)).astype(np.float32)
    a, b, c = lib.array("f8e4m3", m, k).put(x), lib.array("f8e4m3", n, k).put(w), lib.array("bf16", m, n)
    a_scale, b_scale = lib.array("f32", m, blocks).put(x_scale), lib.array("f32", n // 128, blocks).put(w_scale)
    values = lambda bits, scale, rows: decode(bits, "f8e4m3") * np.repeat(np.repeat(scale.astype(np.float64), rows, 0), 128, 1)
    return Case(lib, "fp8_gemm", "f8e4m3, blocks of 128", m, n, k, dict(b=b, b_scale=b_scale), [a, a_scale, c],
                dict(a=a, a_scale=a_scale, c=c, scaling=2), _product(rng, values(x, x_scale, 1), values(w, w_scale, 128), c, "bf16", n))


def _w4a8_gemm(lib, m, n, k):
    rng = np.random.default_rng(4)
    codes = _integers(rng, n, k, 4)
    stored = (codes.astype(np.int16) - 8).astype(np.int8)
    # Powers of two, so that an integer times its group's scale is an e4m3 number.
    s = encode(2.0 ** rng.integers(-3, 2, (len(codes), k // 128)), "f8e4m3")
    channel, row_scale = rng.uniform(0.5, 1.5, n).astype(np.float32), rng.uniform(0.5, 1.5, m).astype(np.float32)
    q, scales = lib.array("i8", n, k).put(stored), lib.array("f8e4m3", n, k // 128).put(s)
    packed, packed_scales, _ = lib.pack(q, scales, 4, 128, operand=1)
    x = _rows(rng, m, k, "f8e4m3")
    x = np.tile(x, (-(-m // len(x)), 1))[:m]
    a, a_scale = lib.array("f8e4m3", m, k).put(x), lib.array("f32", m).put(row_scale)
    channel_scale, c = lib.array("f32", n).put(channel), lib.array("bf16", m, n)
    w = stored * np.repeat(decode(s, "f8e4m3"), 128, axis=1)

    def sample():
        rows, columns = np.arange(min(m, 16)), rng.choice(n, min(n, 256), replace=False)
        values = decode(x[rows], "f8e4m3") * row_scale[rows, None].astype(np.float64)
        want = values @ w[columns % len(w)].T * channel[columns]
        return decode(c.get()[np.ix_(rows, columns)], "bf16"), want, BOUNDS["bf16"]
    return Case(lib, "w4a8_gemm", "f8e4m3 x int4 g128", m, n, k, dict(packed=packed, packed_scales=packed_scales), [a, a_scale, channel_scale, c],
                dict(a=a, a_scale=a_scale, channel_scale=channel_scale, c=c, n=n, k=k), sample)


def _quantize_activations(lib, m, n, k):
    rng = np.random.default_rng(5)
    x, values = _activations(lib, rng, m, k, "bf16")
    q, scales = lib.array("f8e4m3", m, k), lib.array("f32", m, -(-k // 128))

    def sample():  # half a step of e4m3 is 1/16 of the value at most
        restored = decode(q.get(), "f8e4m3") * np.repeat(scales.get().astype(np.float64), 128, axis=1)[:, :k]
        return restored, values, 0.04
    return Case(lib, "quantize_activations", "bf16 to f8e4m3, blocks of 128", m, n, k, dict(x=x), [q, scales], dict(q=q, scales=scales, mode=1), sample, 0)


def _sparse_mlp(lib, m, n, k):
    """n rows inside, k columns; half of the rows are switched off."""
    rng = np.random.default_rng(6)
    gate, up, down = (_rows(rng, n, k, "f16", k**-0.5) for _ in range(3))
    x, values = _activations(lib, rng, m, k)
    d = lambda bits: decode(bits, "f16")
    h = values @ d(gate).T
    h /= 1 + np.exp(-h)
    ordered = np.sort(np.abs(h).ravel())
    middle = ordered[len(ordered) * 2 // 5: len(ordered) * 3 // 5]  # a threshold in the widest gap: nothing rounds across it
    widest = int(np.argmax(np.diff(middle)))
    threshold = float(middle[widest: widest + 2].mean())
    kept = np.where(np.abs(h) >= threshold, h * (values @ d(up).T), 0)
    y = lib.array("f16", m, k)
    arrays = {name: lib.array("f16", n, k).put(bits) for name, bits in (("w_gate", gate), ("w_up", up), ("w_down_t", down))}
    share = float(np.mean(np.any(kept != 0, axis=0)))
    sample = lambda: (decode(y.get(), "f16"), kept @ d(down) * (n / len(down)), 1.5 * BOUNDS["f16"])
    case = Case(lib, "sparse_mlp", f"f16, {share:.0%} of the rows", m, n, k, arrays, [x, y], dict(x=x, y=y, threshold=threshold), sample,
                int(2 * m * n * k * (1 + 2 * share)))
    case.bytes = int(2 * n * k * (1 + 2 * share)) + x.bytes + y.bytes
    return case


def _linear_logprob(lib, m, n, k):
    """n words; the sample is of the first tokens."""
    rng = np.random.default_rng(7)
    words = _rows(rng, n, k, "bf16", k**-0.5)
    e, values = _activations(lib, rng, m, k, "bf16")
    c, targets = lib.array("bf16", n, k).put(words), rng.integers(0, n, m)
    logprob, lse, target = lib.array("f32", m), lib.array("f32", m), lib.array("i64", m).put(targets)

    def sample():
        z = values[:16] @ decode(words, "bf16").T
        count = np.bincount(np.arange(n) % len(words), minlength=len(words))
        want = np.log(np.sum(np.exp(z) * count, axis=1))
        chosen = z[np.arange(len(z)), targets[:16] % len(words)]
        return np.concatenate([lse.get()[:16], logprob.get()[:16]]), np.concatenate([want, chosen - want]), BOUNDS["bf16"]
    return Case(lib, "linear_logprob", "bf16", m, n, k, dict(c=c), [e, logprob, lse],
                dict(e=e, targets=target, logprob=logprob, lse=lse, ignore_index=-100), sample)


CASES = {
    "gemm": _gemm,
    "w4a16_gemm": _packed("w4a16_gemm", 4),
    "w4a16_sparse24_gemm": _packed("w4a16_sparse24_gemm", 4, sparse=True),
    "w8a16_gemm": _packed("w8a16_gemm", 8),
    "w6a16_gemm": _packed("w6a16_gemm", 6),
    "w6a8_gemm": _packed("w6a8_gemm", 6, byte_operand=True),
    "w4a8_gemm": _w4a8_gemm,
    "fp8_gemm": _fp8_gemm,
    "quantize_activations": _quantize_activations,
    "sparse_mlp": _sparse_mlp,
    "linear_logprob": _linear_logprob,
}
