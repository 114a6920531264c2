"""Who does the same work: fla's Triton kernels on a GPU, where installed; torch on the cpu; torch's softmax attention on both."""
import sys

CHUNK = 64
DELTA = ("delta_rule", "gated_delta_rule", "kda")


def of(bench, case):
    """[(name, call, result)] as bench.py wants them."""
    B, T = case.shape[:2]
    if bench.device == "cuda":
        result = fla(bench.torch, case)
    elif T <= 16:
        result = torch_steps(bench, case)
    else:
        result = torch_chunks(bench, case)
    if case.op == "gated_delta_rule" and B == 1 and T >= 512:
        result.append(("softmax_attention", softmax_attention(bench, case), None))
    return result


def softmax_attention(bench, case):
    """Causal, with as many heads as there are of values."""
    torch = bench.torch
    B, T, _, HV, K, _ = case.shape
    q, k, v = (torch.randn(B, HV, T, K, dtype=torch.float32).to(bench.device, torch.bfloat16) for _ in range(3))
    return lambda i: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


# ---- torch on the cpu

def _operands(bench, case, copy, repeat):
    """In f32, heads before tokens, a key head for every value head: as the formulas want them. Not part of what is timed."""
    B, T, H, HV, K, V = case.shape
    x = {name: bench.tensor(array).float() for name, array in copy.items()}
    for name in "qk":
        x[name] = x[name].repeat_interleave(HV // H, 2) if repeat else x[name]
    x["q"] = x["q"] * K**-0.5
    return {name: t if name == "initial_state" else t.transpose(1, 2).contiguous() for name, t in x.items()}


def torch_chunks(bench, case):
    """The chunkwise form in f32 by products of matrices, chunks of 64: within a chunk of the delta rule, d = (1 + A)^-1 (beta (v - k~ S)), A the
    strictly lower part of beta k~ k'^T, k~ = k e^g and k' = k e^-g with g the sum of log gates in the chunk (Yang et al. 2024, arXiv 2412.06464)."""
    torch = bench.torch
    B, T, H, HV, K, V = case.shape
    delta, gated, channel = case.op in DELTA, "g" in case.copies[0], case.op in ("gated_linear_attention", "kda")
    n = -(-T // CHUNK)
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool).tril()
    eye = torch.eye(CHUNK)

    def chunked(x):
        x = torch.nn.functional.pad(x, (0, 0) * (x.dim() - 3) + (0, n * CHUNK - T))
        return x.view(B, HV, n, CHUNK, *x.shape[3:])
    copies = [{name: chunked(t) for name, t in _operands(bench, case, c, True).items()} for c in case.copies[:8]]

    def run(x):
        q, k, v = x["q"], x["k"], x["v"]
        total = None
        if gated:
            g = x["g"].cumsum(3)
            g = g if channel else g[..., None]
            decay, total = g.exp(), g[:, :, :, -1:]
            if channel:  # the difference of two gates as two factors: as in the recurrence's references, for chunks whose sums stay small
                scores = lambda a: torch.where(lower, (a * decay) @ (k * (-g).exp()).transpose(-1, -2), 0)
            else:
                between = torch.where(lower, (g - g.transpose(-1, -2)).masked_fill(~lower, 0).exp(), 0)
                scores = lambda a: a @ k.transpose(-1, -2) * between
            q_in, k_in, k_out, total = q * decay, k * decay, k * (total - g).exp(), total.exp().transpose(-1, -2)
        else:
            scores = lambda a: torch.where(lower, a @ k.transpose(-1, -2), 0)
            q_in, k_in, k_out = q, k, k
        inside = scores(q)
        if delta:
            beta = x["beta"][..., None]
            a = (scores(k) * beta).tril(-1) + eye
            both = torch.linalg.solve_triangular(a, torch.cat([v * beta, k_in * beta], -1), upper=False, unitriangular=True)
            d, w = both[..., :V], both[..., V:]
        state, out = torch.zeros(B, HV, K, V), torch.empty(B, HV, n, CHUNK, V)
        for c in range(n):
            u = d[:, :, c] - w[:, :, c] @ state if delta else v[:, :, c]
            out[:, :, c] = q_in[:, :, c] @ state + inside[:, :, c] @ u
            state = (state * total[:, :, c] if gated else state) + k_out[:, :, c].transpose(-1, -2) @ u
        return out
    last = [None]

    def call(i):
        last[0] = run(copies[i % len(copies)])
    return [("torch_chunks", call, lambda: last[0].reshape(B, HV, -1, V)[:, :, :T].transpose(1, 2).double().numpy())]


def torch_steps(bench, case):
    """Token by token, f32 states [V, K] that are updated in place."""
    torch = bench.torch
    B, T, H, HV, K, V = case.shape
    delta, channel = case.op in DELTA, case.op in ("gated_linear_attention", "kda")
    copies = [_operands(bench, case, c, True) for c in case.copies]
    states = [c.get("initial_state", torch.zeros(B, HV, V, K)).clone() for c in copies]

    def call(i):
        x, state = copies[i % len(copies)], states[i % len(copies)]
        out = []
        for t in range(T):
            q, k, v = x["q"][:, :, t, :, None], x["k"][:, :, t, :, None], x["v"][:, :, t]
            if "g" in x:
                decay = x["g"][:, :, t].exp()
                state *= decay[:, :, None, :] if channel else decay[..., None, None]
            d = v
            if delta:
                d = (v - (state @ k)[..., 0]) * x["beta"][:, :, t, None]
            torch.baddbmm(state.view(-1, V, K), d.reshape(-1, V, 1), k.reshape(-1, 1, K), out=state.view(-1, V, K))
            out.append((state @ q)[..., 0])
        return out
    return [("torch_steps", call, None)]


# ---- fla

def fla(torch, case):
    """Its chunkwise kernel, or its recurrent one for at most 16 tokens."""
    try:
        from fla.ops.delta_rule import chunk_delta_rule, fused_recurrent_delta_rule
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
        from fla.ops.gla import chunk_gla, fused_recurrent_gla
        from fla.ops.kda import chunk_kda, fused_recurrent_kda
        from fla.ops.simple_gla import chunk_simple_gla, fused_recurrent_simple_gla
    except ImportError:
        return []
    op = case.op
    B, T, H, HV, K, V = case.shape
    functions = {"delta_rule": (chunk_delta_rule, fused_recurrent_delta_rule), "gated_delta_rule": (chunk_gated_delta_rule, fused_recurrent_gated_delta_rule),
                 "gated_linear_attention": (chunk_gla, fused_recurrent_gla), "kda": (chunk_kda, fused_recurrent_kda),
                 "simple_gla": (chunk_simple_gla, fused_recurrent_simple_gla)}
    function = functions[op][T <= 16]
    heads = H if op in ("gated_delta_rule", "kda") else HV  # the others take as many q/k heads as value heads
    options = dict(device="cuda", dtype=torch.bfloat16)
    arguments = {"q": torch.randn(B, T, heads, K, **options), "k": torch.nn.functional.normalize(torch.randn(B, T, heads, K, **options), dim=-1),
                 "v": torch.randn(B, T, HV, V, **options)}
    if op in DELTA:
        arguments["beta"] = torch.rand(B, T, HV, **options)
    if op in ("simple_gla", "gated_delta_rule", "kda"):
        arguments["g"] = -torch.rand(B, T, HV, *((K,) if op == "kda" else ()), device="cuda") * 0.2
    if op == "gated_linear_attention":
        arguments["g" if T > 16 else "gk"] = -torch.rand(B, T, HV, K, device="cuda") * 0.2
    if case.states:
        arguments.update(initial_state=torch.randn(B, HV, K, V, device="cuda"), output_final_state=True)

    def call(_):
        with torch.no_grad():
            return function(**arguments)
    try:
        call(0)
        torch.cuda.synchronize()
    except Exception as failure:  # a peer's failure is its own
        print(f"fla {op} {case.shape}: {failure}", file=sys.stderr)
        return []
    return [("fla", call, None)]
