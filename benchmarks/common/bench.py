"""A family's benchmark on any device: its options, the limits, calls and peers timed alike, the rows, the JSON.

A case, as a family's script makes it, has
    op, fields       the operator, and what else a row says of the call: the first is its name
    calls            argument structs of one call each, on operands that rotate; the bytes and operations of one
    check(lib)       runs the first call; the rms ratio of its result to sums in double
    bound            what that ratio may be at most
    bf16_products    optional: that the cpu multiplies pairs of bf16 numbers where the processor can
    peers(bench)     optional: [(name, call, result)]. call: call(i), or (op, args), one of the library's own; result: None, or a function that
                     returns the peer's output as an array, which must agree with `output`
"""
import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemm"))
import peers as cuda_peers  # noqa: E402
from culebra import Library, Unsupported, decode  # noqa: E402
from peers import launches_for, summary  # noqa: E402

ROTATED_BYTES = 256 << 20
PAUSE_SECONDS = 0.03  # between two that are timed: the threads of the one before go to sleep


def parser(doc, minutes):
    p = argparse.ArgumentParser(description=doc.split("\n")[0])
    p.add_argument("--library", required=True)
    p.add_argument("--device", "--backend", dest="device", default="cuda", choices=("cuda", "cpu", "simt"))
    p.add_argument("--output", required=True)
    p.add_argument("--minutes", type=float, default=minutes, help="what does not fit is left out, and listed")
    p.add_argument("--quick", action="store_true", help="few repetitions")
    p.add_argument("--check", action="store_true", help="check the results, the peers' too, and time nothing")
    p.add_argument("--only", help="one operator")
    p.add_argument("--case", default="", help="only what has this text in its description")
    p.add_argument("--limits", help="the program bench_limits, which measures the cpu's (native/README.md)")
    p.add_argument("--commit", default="unknown")
    return p


def in_turn(contenders, rounds, seconds):
    """Milliseconds of each call(i), which returns when its work is done: in every round each one runs once to warm up, then for `seconds`,
    so that what else the machine does meets all of them. A call that takes longer than `seconds` is its own warm-up after the first round,
    and has no more rounds than fill ten times `seconds`, but two at least."""
    times, calls, slow = [[] for _ in contenders], [0] * len(contenders), [False] * len(contenders)
    for _ in range(rounds):
        for at, call in enumerate(contenders):
            if slow[at] and len(times[at]) >= 2 and sum(times[at]) >= 1e4 * seconds:
                continue
            time.sleep(PAUSE_SECONDS)
            if not slow[at]:
                start = time.perf_counter()
                call(calls[at])
                slow[at] = time.perf_counter() - start > seconds
            end = time.perf_counter() + seconds
            while True:
                calls[at] += 1
                start = time.perf_counter()
                call(calls[at])
                now = time.perf_counter()
                times[at].append((now - start) * 1e3)
                if now >= end:
                    break
    return times


def rms_ratio(got, want):
    return float(np.sqrt(np.sum((got - want) ** 2) / max(np.sum(want**2), 1e-300)))


class Bench:
    def __init__(self, name, options):
        self.name, self.options = name, options
        self.lib = Library(options.library, options.device)
        self.device = self.lib.backend
        self.end = time.monotonic() + 60 * options.minutes
        self.load = os.getloadavg()[0]
        self.rows, self.left_out = [], []
        self.cuda = cuda_peers.Peers(self.device == "cuda", None)
        self.torch = self.cuda.torch
        if self.device == "cpu":
            try:
                import torch
                torch.set_grad_enabled(False)
                torch.set_num_threads(self.lib.info.multiprocessors)
                self.torch = torch
            except ImportError:
                print("no torch: no peers", file=sys.stderr)
        self.limits = self.cuda.limits() if self.device == "cuda" else self._cpu_limits()

    def _cpu_limits(self):
        """GB/s that all threads read, TFLOP/s of multiplications and additions in registers."""
        if not self.options.limits or self.device != "cpu":
            return {}
        return json.loads(subprocess.run([self.options.limits], check=True, capture_output=True, text=True).stdout)

    def _peak(self, case):
        """TFLOP/s of the multiplications that the operator uses: on the cpu those of f32 unless the case says bf16, where there are some."""
        if self.device == "cpu" and not (getattr(case, "bf16_products", False) and self.limits.get("bf16_tflop_s")):
            return self.limits["f32_tflop_s"]
        return self.limits["bf16_tflop_s"]

    def tensor(self, array, *shape):
        """The same memory as a torch tensor; cpu alone."""
        import ctypes as C
        types = {"f32": self.torch.float32, "f16": self.torch.float16, "bf16": self.torch.bfloat16, "i32": self.torch.int32, "i64": self.torch.int64,
                 "u8": self.torch.uint8}
        memory = (C.c_uint8 * array.bytes).from_address(array.pointer.value)
        tensor = self.torch.frombuffer(memory, dtype=types[array.dtype]).view(shape or array.shape)
        tensor.culebra_array = array
        return tensor

    def wants(self, op, what=""):
        """Whether a row is to be measured: an option may leave its operator out, and time runs out."""
        if self.options.only and op != self.options.only or self.options.case not in what:
            return False
        if time.monotonic() > self.end:
            self.left_out.append(f"{op} {what}".strip())
            return False
        return True

    def measure(self, make, op, what=""):
        """The row of the case make(): checked, timed beside its peers. None where there is none."""
        if not self.wants(op, what):
            return None
        try:
            return self._measure(make())
        except Unsupported as reason:
            self.left_out.append(str(reason))
            return None

    def _measure(self, case):
        lib, self.last = self.lib, case
        row = {"op": case.op, **case.fields, "rms_ratio": case.check(lib), "bytes": case.bytes, "operations": case.operations}
        if hasattr(lib.lib, "cul_" + case.op):
            row["plan"] = lib.plan(case.op, case.calls[0])
        bound = getattr(case, "bound", 5e-3)
        if not row["rms_ratio"] <= bound:
            raise SystemExit(f"wrong result, beyond {bound}: {row}")
        self.rows.append(row)
        if self.device == "simt":
            return row
        peers = case.peers(self) if self.torch and hasattr(case, "peers") else []
        # The library's calls may be several operators, one after the other.
        enqueue = getattr(case, "enqueue", None) or (lambda i: lib.enqueue(case.op, case.calls[i]))
        for name, call, result in peers:
            if callable(call):
                call(0)
            if result is not None:
                enqueue(0)
                lib.synchronize()
                got = decode(case.output.get(), case.output.dtype)
                row[f"{name} differs"] = rms_ratio(got, np.asarray(result(), np.float64).reshape(got.shape))
                if not row[f"{name} differs"] <= max(2 * bound, 1e-2):
                    raise SystemExit(f"{name} and the library differ: {row}")
        if self.options.check:
            print(f"{case.op} {' '.join(str(v) for v in case.fields.values())}: rms {row['rms_ratio']:.1e}"
                  + "".join(f", {key} {value:.1e}" for key, value in row.items() if key.endswith(" differs")), file=sys.stderr, flush=True)
            return row
        ours, others = self._times(enqueue, len(case.calls), peers)
        row.update(summary(ours))
        ms = row["median_ms"]
        row.update(gb_s=case.bytes / ms / 1e6, tflop_s=case.operations / ms / 1e9)
        if self.limits:
            memory_ms = case.bytes / self.limits["bandwidth_gb_s"] / 1e6
            arithmetic_ms = case.operations / self._peak(case) / 1e9
            row.update(limit="memory" if memory_ms >= arithmetic_ms else "arithmetic", limit_ms=max(memory_ms, arithmetic_ms))
            row["fraction_of_limit"] = row["limit_ms"] / ms
            row["fraction_of_bandwidth"] = memory_ms / ms
        for name, times in others.items():
            row.update({f"{name} {key}": value for key, value in summary(times).items()})
            row[f"speed_over {name}"] = row[f"{name} median_ms"] / ms
        shown = " ".join(f"{v}" for v in case.fields.values())
        print(f"{case.op} {shown}: {ms:.4f} ms, {row['gb_s']:.1f} GB/s, {row['tflop_s']:.3f} TFLOP/s, of the limit "
              f"{row.get('fraction_of_limit', 0):.2f}, rms {row['rms_ratio']:.1e}"
              + "".join(f", {name} {row[f'{name} median_ms']:.4f} ms" for name in others), file=sys.stderr, flush=True)
        return row

    def _times(self, enqueue, copies, peers):
        lib, quick = self.lib, self.options.quick
        if self.device == "cpu":
            def ours(i):
                enqueue(i % copies)
                lib.synchronize()

            def waiting(call):
                if callable(call):
                    return call

                def own(_):
                    lib.enqueue(*call)
                    lib.synchronize()
                return own
            times = in_turn([ours] + [waiting(call) for _, call, _ in peers], 2 if quick else 5, 0.02 if quick else 0.1)
            return times[0], {name: t for (name, _, _), t in zip(peers, times[1:])}
        def graph_times(enqueue, copies, repetitions):
            graph = lib.capture(lambda: enqueue(0))
            once = lib.time_graph(graph)
            lib.destroy_graph(graph)
            launches = launches_for(once, copies)
            graph = lib.capture(lambda: [enqueue(i % copies) for i in range(launches)])
            times = [lib.time_graph(graph) / launches for _ in range(repetitions + 2)][2:]
            lib.destroy_graph(graph)
            return times
        others = {name: self.cuda.time(call, 1, 9) if callable(call) else graph_times(lambda i: lib.enqueue(*call), 1, 9) for name, call, _ in peers}
        return graph_times(enqueue, copies, 5 if quick else 15), others

    def finish(self, **more):
        """Writes the results; other work on the machine would show in the limits, which are measured again."""
        after = self._cpu_limits()
        versions = {"torch": self.torch.__version__} if self.torch else {}
        info = self.lib.info
        results = {"benchmark": self.name, "commit": self.options.commit, "device": info.name.decode(), "detail": info.detail.decode(),
                   "date": time.strftime("%Y-%m-%d"), "load_average": self.load, "quick": self.options.quick, **versions, **self.cuda.versions(), **self.limits,
                   **{f"{key}_after": value for key, value in after.items()}, **more, "left_out": self.left_out, "rows": self.rows}
        with open(self.options.output, "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")
        if self.left_out:
            print(f"left out: {self.left_out}", file=sys.stderr)
