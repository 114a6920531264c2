#!/usr/bin/env python3
"""Time a token against the length of a sequence, beside softmax attention, and decoding's bandwidth against the batch: one SVG.

    benchmarks/linear_attention/plot.py linear_attention.json OUT.svg

The first panel is logarithmic: a constant cost a token is a horizontal line.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import chart  # noqa: E402


def lengths(rows):
    """line -> [(T, microseconds a token)], of the heads that have the most rows."""
    rows = [r for r in rows if r["op"] == "gated_delta_rule" and r["B"] == 1 and r["T"] >= 512 and not r["states"]]
    heads = [(r["H"], r["HV"]) for r in rows]
    most = max(dict.fromkeys(heads), key=heads.count, default=None)
    lines = {}
    for row in rows:
        if (row["H"], row["HV"]) == most:
            for name, field in (("gated_delta_rule", ""), ("softmax attention (torch)", "softmax_attention "), ("fla", "fla "), ("torch, in chunks", "torch_chunks ")):
                if row.get(field + "median_ms"):
                    lines.setdefault(name, []).append((row["T"], row[field + "median_ms"] * 1e3 / row["T"]))
    return most, lines


def decoding(rows):
    """line -> [(batch, GB/s)]"""
    lines = {}
    for row in rows:
        if row["op"] == "gated_delta_rule" and row["T"] == 1 and row["states"]:
            for name, field in (("gated_delta_rule", ""), ("fla", "fla "), ("torch", "torch_steps ")):
                if row.get(field + "median_ms"):
                    lines.setdefault(name, []).append((row["B"], row["bytes"] / row[field + "median_ms"] / 1e6))
    return lines


def draw(results):
    heads, against_length = lengths(results["rows"])
    batches = decoding(results["rows"])
    if "bandwidth_gb_s" in results and batches:
        batches["memory"] = [(b, results["bandwidth_gb_s"]) for b, _ in batches["gated_delta_rule"]]
    return chart.draw("Linear attention", chart.where(results), [
        {"title": f"microseconds a token against T, {heads[0]} key and {heads[1]} value heads of 128" if heads else "", "lines": against_length, "log": True},
        {"title": "decoding: GB/s against the batch", "lines": batches, "dashed": ("memory",)}])


if __name__ == "__main__":
    chart.write(sys.argv[2], draw(chart.read(sys.argv[1])))
