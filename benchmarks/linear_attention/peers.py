"""fla's Triton kernels and torch's softmax attention on the same shapes, where those packages are (obtained separately)."""
import statistics
import sys


class Peers:
    def __init__(self, wanted):
        self.torch = self.fla = None
        if not wanted:
            return
        try:
            import torch
        except ImportError:
            print("no torch: no peers", file=sys.stderr)
            return
        self.torch = torch
        try:
            import fla
            self.fla = fla
        except ImportError:
            print("no fla: softmax attention alone", file=sys.stderr)

    def versions(self):
        result = {"torch": self.torch.__version__} if self.torch else {}
        if self.fla:
            result["fla"] = self.fla.__version__
        return result

    def _time(self, call, repetitions):
        """Milliseconds of a call in a CUDA graph."""
        torch = self.torch
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):
                call()
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                call()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            times = []
            for _ in range(repetitions + 2):
                start.record()
                graph.replay()
                end.record()
                stream.synchronize()
                times.append(start.elapsed_time(end))
        return statistics.median(times[2:])

    def recurrence(self, op, shape, states, repetitions):
        """fla's chunkwise kernel, or its recurrent one for at most 16 tokens; None where it has none."""
        if not self.fla:
            return None
        torch = self.torch
        from fla.ops.delta_rule import chunk_delta_rule, fused_recurrent_delta_rule
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
        from fla.ops.gla import chunk_gla, fused_recurrent_gla
        from fla.ops.kda import chunk_kda, fused_recurrent_kda
        from fla.ops.simple_gla import chunk_simple_gla, fused_recurrent_simple_gla
        B, T, H, HV, K, V = shape
        functions = {"delta_rule": (chunk_delta_rule, fused_recurrent_delta_rule), "gated_delta_rule": (chunk_gated_delta_rule, fused_recurrent_gated_delta_rule),
                     "gated_linear_attention": (chunk_gla, fused_recurrent_gla), "kda": (chunk_kda, fused_recurrent_kda),
                     "simple_gla": (chunk_simple_gla, fused_recurrent_simple_gla)}
        function = functions[op][T <= 16]
        heads = H if op in ("gated_delta_rule", "kda") else HV  # the others take as many q/k heads as value heads
        options = dict(device="cuda", dtype=torch.bfloat16)
        arguments = {"q": torch.randn(B, T, heads, K, **options), "k": torch.nn.functional.normalize(torch.randn(B, T, heads, K, **options), dim=-1),
                     "v": torch.randn(B, T, HV, V, **options)}
        if op in ("delta_rule", "gated_delta_rule", "kda"):
            arguments["beta"] = torch.rand(B, T, HV, **options)
        if op in ("simple_gla", "gated_delta_rule", "kda"):
            arguments["g"] = -torch.rand(B, T, HV, *((K,) if op == "kda" else ()), device="cuda") * 0.2
        if op == "gated_linear_attention":
            arguments["g" if T > 16 else "gk"] = -torch.rand(B, T, HV, K, device="cuda") * 0.2
        if states:
            arguments.update(initial_state=torch.randn(B, HV, K, V, device="cuda"), output_final_state=True)
        try:
            return self._time(lambda: function(**arguments), repetitions)
        except Exception as failure:  # a peer's failure is its own
            print(f"fla {op} {shape}: {failure}", file=sys.stderr)
            return None
        finally:
            torch.cuda.empty_cache()

    def attention(self, shape, repetitions):
        """Causal softmax attention with as many heads."""
        if not self.torch:
            return None
        torch = self.torch
        B, T, _, HV, K, _ = shape
        q, k, v = (torch.randn(B, HV, T, K, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        call = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._time(call, repetitions)
