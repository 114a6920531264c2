"""The recurrences as cases: operands that rotate past the caches, the bytes and operations that a call needs, a check in double."""
import ctypes as C
import os
import sys

import numpy as np

import recurrence_peers

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
from bench import ROTATED_BYTES  # noqa: E402  (makes the modules of ../gemm importable)
import culebra  # noqa: E402
from culebra import decode, encode  # noqa: E402

BOUNDS = {"f32": 1e-5, "f16": 2e-3, "bf16": 5e-3}
CHECKED_TOKENS = 192  # an output depends on no later token: a prefix is a check
OPS = ("simple_gla", "gated_linear_attention", "delta_rule", "gated_delta_rule", "kda")
DELTA = ("delta_rule", "gated_delta_rule", "kda")
TOKEN_GATE = ("simple_gla", "gated_delta_rule")
CHANNEL_GATE = ("gated_linear_attention", "kda")

for _op in OPS:
    culebra.ARGS[_op] = culebra._args(
        "q k v beta g g_head a a_log dt_bias cu_seqlens initial_state state_read_index state_write_index o final_state checkpoints",
        ("scale", C.c_float), ("state_layout", C.c_int32), ("checkpoint_every", C.c_int32), ("qk_l2norm", C.c_int32),
        ("gate_mode", C.c_int32), ("lower_bound", C.c_float))


class Case:
    """One op on B sequences of T tokens, H and HV heads, K and V channels; states as in decoding where `states`."""

    def __init__(self, lib, op, B, T, H, HV, K, V, dtype="bf16", states=False):
        self.lib, self.op, self.shape, self.dtype, self.states = lib, op, (B, T, H, HV, K, V), dtype, states
        self.bound = BOUNDS[dtype]
        self.fields = {"B": B, "T": T, "H": H, "HV": HV, "K": K, "V": V, "states": states}
        random = np.random.default_rng(1)
        keys, values, heads = (B, T, H, K), (B, T, HV, V), (B, T, HV)
        gates = heads + (K,) if op in CHANNEL_GATE else heads

        def array(dtype, shape, make):
            """Random rows, the first 64K elements' repeated; at least one token's."""
            row = int(np.prod(shape[2:]))
            rows = max(1, min(B * T, CHECKED_TOKENS, (1 << 22) // row + CHECKED_TOKENS))
            return lib.array(dtype, *shape).put(encode(make((rows, row)), dtype))

        normal = lambda size: random.standard_normal(size, np.float32)
        inputs = {"q": array(dtype, keys, normal), "k": array(dtype, keys, lambda s: normal(s) * np.float32(K**-0.5)),
                  "v": array(dtype, values, normal)}
        if op in DELTA:
            inputs["beta"] = array("f32", heads, lambda s: random.random(s, np.float32))
        if op in TOKEN_GATE + CHANNEL_GATE:
            inputs["g"] = array("f32", gates, lambda s: -random.random(s, np.float32) * np.float32(0.2))
        if states:
            inputs["initial_state"] = lib.array("f32", B, HV, V, K)
            inputs["initial_state"].put(normal((1, min(HV * V * K, 1 << 20))))
        output = lib.array(dtype, *values)
        state_bytes = 2 * 4 * B * HV * V * K if states else 0
        self.bytes = sum(a.bytes for n, a in inputs.items() if n != "initial_state") + output.bytes + state_bytes
        # Products of the chunkwise form with chunks of 64, halves of triangles; token by token the state's two products and its update.
        delta = op in DELTA
        per_token = 6 * K * V if delta else 4 * K * V
        if T > 16 and lib.backend == "cuda":  # elsewhere every token is a step of its own
            per_token += 64 * (3 * K + 2 * V) + 64 * 64 * 2 / 3 if delta else 64 * (K + V)
        self.operations = B * T * HV * per_token
        own = sum(a.bytes for a in inputs.values())
        copies = [inputs]
        while len(copies) * own < ROTATED_BYTES and len(copies) < 64 and lib.backend != "simt":
            copies.append({n: a.copy() for n, a in inputs.items()})
        self.calls = []
        for arrays in copies:
            extra = {"final_state": arrays["initial_state"]} if states else {}
            self.calls.append(lib.args(op, **arrays, o=output, **extra))
        self.inputs, self.output, self.copies = inputs, output, copies

    def peers(self, bench):
        return recurrence_peers.of(bench, self)

    def check(self, lib):
        """rms ratio of the first sequence's first tokens, first and last head, against the recurrence in double."""
        B, T, H, HV, K, V = self.shape
        tokens = min(T, CHECKED_TOKENS)
        stored = {n: decode(a.get(), a.dtype) for n, a in self.inputs.items()} if B * T <= 4096 else {n: self._prefix(a, tokens) for n, a in self.inputs.items()}
        self.lib.enqueue(self.op, self.calls[0])
        self.lib.synchronize()
        got = decode(self.output.get(), self.dtype) if B * T <= 4096 else self._prefix(self.output, tokens)
        error = size = 0.0
        for head in {0, HV - 1}:
            state = stored["initial_state"][0, head] if self.states else np.zeros((V, K))
            key_head = head // (HV // H)
            for t in range(tokens):
                q, k, v = stored["q"][0, t, key_head] * K**-0.5, stored["k"][0, t, key_head], stored["v"][0, t, head]
                if "g" in stored:
                    state = state * np.exp(np.maximum(stored["g"][0, t, head], -30))
                d = stored["beta"][0, t, head] * (v - state @ k) if "beta" in stored else v
                state = state + np.outer(d, k)
                error += np.sum((got[0, t, head] - state @ q) ** 2)
                size += np.sum((state @ q) ** 2)
        return float(np.sqrt(error / size))

    def _prefix(self, array, tokens):
        """The first tokens of the first sequence, in double."""
        B, T = self.shape[:2]
        if array.shape[1] != T:  # a state: of the first sequence
            part = np.empty((1,) + array.shape[1:], array.type)
        else:
            part = np.empty((1, tokens) + array.shape[2:], array.type)
        self.lib.check(self.lib.lib.cul_copy(self.lib.stream, C.c_void_p(part.ctypes.data), array.pointer, C.c_uint64(part.nbytes)))
        self.lib.synchronize()
        return decode(part, array.dtype)
