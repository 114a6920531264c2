"""The peers and the limits of the device, through torch: cuBLAS in bf16, and the original Marlin kernel where a build of it is given.

Without torch, or on another backend than cuda, there are none: results then have neither peers nor limits.
"""
import importlib
import statistics
import sys

ROTATED_BYTES = 256 << 20


class Peers:
    def __init__(self, wanted, marlin):
        self.torch = self.marlin = None
        if not wanted:
            return
        try:
            import torch
        except ImportError:
            print("no torch: neither limits nor peers", file=sys.stderr)
            return
        self.torch = torch
        torch.backends.cuda.matmul.allow_tf32 = False
        if marlin:
            sys.path.insert(0, marlin)
            self.marlin = importlib.import_module("marlin")
            self._check_marlin()

    def versions(self):
        if not self.torch:
            return {}
        return {"torch": self.torch.__version__, "cuda": self.torch.version.cuda, "marlin": "yes" if self.marlin else "none"}

    def time(self, call, copies, repetitions):
        """Milliseconds of call(i), captured in a graph of launches over all copies: one figure a replay."""
        torch = self.torch
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for i in range(copies):
                call(i)
            stream.synchronize()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call(0)
            end.record()
            stream.synchronize()
            launches = launches_for(start.elapsed_time(end), copies)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                for i in range(launches):
                    call(i % copies)
            times = []
            for _ in range(repetitions + 2):
                start.record()
                graph.replay()
                end.record()
                stream.synchronize()
                times.append(start.elapsed_time(end) / launches)
        return times[2:]

    def limits(self):
        """GB/s of a copy (what is read and what is written), bf16 TFLOP/s of cuBLAS on 8192^3, and f8e4m3 TFLOP/s."""
        if not self.torch:
            return {}
        torch = self.torch
        source = torch.empty(4 << 30, dtype=torch.uint8, device="cuda").fill_(1)
        target = torch.empty_like(source)
        copy = min(self.time(lambda i: target.copy_(source), 1, 9))
        result = {"bandwidth_gb_s": 2 * source.numel() / copy / 1e6}
        del source, target
        a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
        result["bf16_tflop_s"] = 2 * 8192**3 / min(self.time(lambda i: torch.nn.functional.linear(a, b), 1, 9)) / 1e9
        if torch.cuda.get_device_capability() >= (8, 9):
            a8, b8, one = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn), torch.ones((), device="cuda")
            product = lambda i: torch._scaled_mm(a8, b8.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
            result["f8_tflop_s"] = 2 * 8192**3 / min(self.time(product, 1, 9)) / 1e9
        return result

    def dense(self, m, n, k, repetitions):
        """cuBLAS bf16 on weights that rotate: its times, checked against f32 on a few rows."""
        torch = self.torch
        copies = max(1, -(-ROTATED_BYTES // (2 * n * k)))
        weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
        a, c = torch.randn(m, k, device="cuda", dtype=torch.bfloat16), torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        call = lambda i: torch.mm(a, weights[i].t(), out=c)
        call(0)
        self._check("cuBLAS", c[:4, :512], a[:4].float() @ weights[0][:512].float().t())
        return self.time(call, copies, repetitions)

    def int4(self, m, n, k, repetitions):
        """The original Marlin kernel, f16 with groups of 128, on random words; None for shapes it does not take."""
        if not self.marlin or n % 256 or k % 128:
            return None
        torch = self.torch
        copies = max(1, -(-ROTATED_BYTES // (n * k // 2)))
        weights = [torch.randint(-(2**31), 2**31 - 1, (k // 16, n * 2), dtype=torch.int, device="cuda") for _ in range(copies)]
        scales = torch.rand(k // 128, n, device="cuda").half() * 0.01
        a, c = torch.randn(m, k, device="cuda").half(), torch.empty(m, n, device="cuda", dtype=torch.half)
        workspace = torch.zeros(n // 128 * 16, dtype=torch.int, device="cuda")
        return self.time(lambda i: self.marlin.mul(a, weights[i], c, scales, workspace), copies, repetitions)

    def _check_marlin(self):
        """That the build computes: its own packing of a small layer, times what was packed."""
        torch, size = self.torch, 1024
        scales = torch.rand(size, size // 128).half() * 0.01 + 0.005
        linear = torch.nn.Linear(size, size, bias=False)
        codes = torch.randint(-8, 8, (size, size))
        linear.weight = torch.nn.Parameter(codes.half() * scales.repeat_interleave(128, 1), requires_grad=False)
        layer = self.marlin.Layer(size, size, groupsize=128)
        layer.pack(linear, scales)
        layer = layer.cuda()
        a = torch.randn(16, size, device="cuda").half()
        self._check("Marlin", layer(a), a.float() @ linear.weight.cuda().float().t())

    def _check(self, name, got, want):
        ratio = ((got.float() - want).norm() / want.norm()).item()
        if not ratio <= 1e-2:
            raise SystemExit(f"{name}: rms ratio {ratio:.3g}")


def launches_for(ms, copies):
    """How many launches a graph has: whole rounds over the copies, a millisecond at least."""
    return copies * max(1, round(1.0 / max(ms, 1e-3) / copies))


def summary(times):
    ordered = sorted(times)
    at = lambda q: ordered[int(q * (len(ordered) - 1) + 0.5)]
    return {"median_ms": statistics.median(ordered), "p10_ms": at(0.1), "p90_ms": at(0.9), "repetitions": len(ordered)}
