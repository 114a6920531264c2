"""Token mixers beside the recurrences of cases.py: mlstm, whose keys are wider than a tile, and the long convolution."""
import ctypes as C

import numpy as np

from cases import BOUNDS, CHECKED_TOKENS, ROTATED_BYTES, culebra, decode, encode

EXP, SIGMOID = 0, 1

culebra.ARGS["mlstm"] = culebra._args(
    "q k v i f cu_seqlens initial_state n_state m_state state_read_index state_write_index o final_state final_n_state final_m_state checkpoints",
    ("scale", C.c_float), ("state_layout", C.c_int32), ("checkpoint_every", C.c_int32), ("input_gate", C.c_int32), ("normalize", C.c_int32),
    ("eps", C.c_float), ("soft_cap", C.c_float), ("reserved0", C.c_int32))
culebra.ARGS["conv_fft"] = culebra._args("x filter skip y")


def rotated(lib, inputs):
    """Copies of the inputs that fill ROTATED_BYTES together."""
    own, copies = sum(a.bytes for a in inputs.values()), [inputs]
    while len(copies) * own < ROTATED_BYTES and len(copies) < 64 and lib.backend != "simt":
        copies.append({n: a.copy() for n, a in inputs.items()})
    return copies


def first_rows(lib, array, rows):
    """The first rows along the second axis of the first of the first axis, in double."""
    part = np.empty((rows,) + array.shape[2:], array.type)
    lib.check(lib.lib.cul_copy(lib.stream, C.c_void_p(part.ctypes.data), array.pointer, C.c_uint64(part.nbytes)))
    lib.synchronize()
    return decode(part, array.dtype)


class Mlstm:
    """B sequences of T tokens, H heads, K and V channels, exp gates with the normaliser or sigmoid ones without, as in Beck et al., arXiv:2503.14376."""
    op = "mlstm"

    def __init__(self, lib, gate, B, T, H, K, V, dtype="bf16"):
        self.lib, self.gate, self.shape, self.bound = lib, gate, (B, T, H, K, V), BOUNDS[dtype]
        self.fields = {"case": f"{gate} gates, {B} x {T}, {H} heads, {K} x {V}", "gate": gate, "B": B, "T": T, "H": H, "K": K, "V": V}
        random = np.random.default_rng(1)

        def array(kind, width, low=0.0):
            rows = max(1, min(B * T, (1 << 22) // (H * width) + CHECKED_TOKENS))
            values = random.standard_normal((rows, H * width), np.float32) + np.float32(low)
            return lib.array(kind, B, T, H, *([width] if width > 1 else [])).put(encode(values, kind))
        inputs = {"q": array(dtype, K), "k": array(dtype, K), "v": array(dtype, V), "i": array("f32", 1), "f": array("f32", 1, 3.0)}
        output = lib.array(dtype, B, T, H, V)
        self.inputs, self.output = inputs, output
        self.bytes = sum(a.bytes for a in inputs.values()) + output.bytes
        per_token = 4 * K * V
        if lib.backend == "cuda":  # in chunks: the scores of half a chunk of 128, too
            per_token += 128 * (K + V)
        self.operations = B * T * H * per_token
        exp = gate == "exp"
        self.calls = [lib.args("mlstm", **x, o=output, input_gate=EXP if exp else SIGMOID, normalize=int(exp), eps=1e-6) for x in rotated(lib, inputs)]

    def check(self, lib):
        """rms ratio of the first sequence's first tokens, first and last head, against the recurrence in double."""
        B, T, H, K, V = self.shape
        tokens = min(T, CHECKED_TOKENS)
        x = {n: first_rows(lib, a, tokens) for n, a in self.inputs.items()}
        lib.enqueue("mlstm", self.calls[0])
        lib.synchronize()
        got = first_rows(lib, self.output, tokens)
        error = size = 0.0
        for head in {0, H - 1}:
            state, n, m = np.zeros((V, K)), np.zeros(K), 0.0
            for t in range(tokens):
                q, k, v = x["q"][t, head] * K**-0.5, x["k"][t, head], x["v"][t, head]
                i, log_f = x["i"][t, head], -np.log1p(np.exp(-x["f"][t, head]))
                if self.gate == "exp":
                    next_m = max(log_f + m, i)
                    decay, gain, m = np.exp(log_f + m - next_m), np.exp(i - next_m), next_m
                else:
                    decay, gain = np.exp(log_f), 1 / (1 + np.exp(-i))
                state, n = decay * state + gain * np.outer(v, k), decay * n + gain * k
                want = state @ q
                if self.gate == "exp":
                    want = want / (max(abs(n @ q), np.exp(-m)) + 1e-6)
                error += np.sum((got[t, head] - want) ** 2)
                size += np.sum(want**2)
        return float(np.sqrt(error / size))


class ConvFft:
    """B rows of T tokens and C channels, a filter of L taps for each channel."""
    op = "conv_fft"

    def __init__(self, lib, B, T, channels, L, dtype="bf16"):
        self.lib, self.shape, self.dtype, self.bound = lib, (B, T, channels, L), dtype, BOUNDS[dtype]
        self.fields = {"case": f"{B} x {T}, {channels} channels, {L} taps", "dtype": dtype, "B": B, "T": T, "C": channels, "L": L}
        random = np.random.default_rng(1)
        rows = min(B * T, max(1, (1 << 22) // channels))
        x = lib.array(dtype, B, T, channels).put(encode(random.standard_normal((rows, channels), np.float32), dtype))
        taps = random.standard_normal((min(channels, max(1, (1 << 22) // L)), L), np.float32) * np.float32(L**-0.5)
        self.filter, self.output = lib.array("f32", channels, L).put(taps), lib.array(dtype, B, T, channels)
        self.bytes = x.bytes + self.output.bytes + self.filter.bytes
        # Either the sum itself, or two transforms of 2 T points and a product.
        self.operations = B * T * channels * int(min(2 * L, 10 * np.log2(2 * T) + 8))
        self.copies = [c["x"] for c in rotated(lib, {"x": x})]
        self.calls = [lib.args("conv_fft", x=c, filter=self.filter, y=self.output) for c in self.copies]

    def check(self, lib):
        """rms ratio of the last row's first and last channel, against transforms in double."""
        B, T, channels, L = self.shape
        lib.enqueue("conv_fft", self.calls[0])
        lib.synchronize()
        ends = [0, channels - 1]
        x, h = decode(self.copies[0].get()[-1][:, ends], self.dtype), self.filter.get()[ends].astype(np.float64).T
        points = 1 << (T + L).bit_length()
        want = np.fft.irfft(np.fft.rfft(x, points, axis=0) * np.fft.rfft(h, points, axis=0), points, axis=0)[:T]
        got = decode(self.output.get()[-1][:, ends], self.dtype)
        return float(np.sqrt(np.sum((got - want) ** 2) / np.sum(want**2)))

    def peers(self, bench):
        """The usual way: transforms along T in f32."""
        torch = bench.torch
        B, T, channels, L = self.shape
        types = {"f32": torch.float32, "bf16": torch.bfloat16}
        x = torch.randn(B, T, channels).to(bench.device, types[self.dtype])
        h = torch.randn(channels, L, device=bench.device)

        def call(i):
            spectrum = torch.fft.rfft(x.transpose(1, 2).float(), n=2 * T) * torch.fft.rfft(h, n=2 * T)
            return torch.fft.irfft(spectrum, n=2 * T)[..., :T].to(x.dtype).transpose(1, 2).contiguous()
        return [("torch_fft", call, None)]


def works(device):
    """(class, arguments)"""
    if device == "simt":
        return [(Mlstm, (gate, 1, 70, 1, 136, 16)) for gate in ("sigmoid", "exp")] + [(ConvFft, (1, 70, 4, L)) for L in (8, 70)]
    if device == "cpu":
        return [(Mlstm, (gate, 1, 1024, 4, 256, 512)) for gate in ("sigmoid", "exp")] + [
            (ConvFft, (1, 4096, 256, L, dtype)) for L in (16, 128, 4096) for dtype in ("bf16", "f32")]
    mlstm = [(Mlstm, (gate, 8, 8192, 8, 256, 512)) for gate in ("sigmoid", "exp")]
    shapes = [(8, 4096, 4096, L) for L in (16, 64, 128, 256, 512, 768, 1024, 4096)] + [(2, 16384, 4096, 16384), (1, 65536, 1024, 65536)]
    return mlstm + [(ConvFft, (*shape, dtype)) for shape in shapes for dtype in ("bf16", "f32")]
