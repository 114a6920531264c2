#!/usr/bin/env python3
"""Latency against the number of tokens, and the share of the limit that is reached against the skew of the routes: one SVG.

    benchmarks/moe/plot.py moe.json OUT.svg
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import chart  # noqa: E402


def latencies(rows, layer):
    lines = {}
    for row in rows:
        if row["op"] == "moe_mlp" and row["layer"] == layer and row["skew"] == 0:
            lines.setdefault(row["experts"] if row["experts"] != "half" else "bf16", []).append((row["tokens"], row["median_ms"]))
            for name, field in (("torch bf16", "torch_bf16 median_ms"), ("limit of bf16", "limit_ms")):
                if row["experts"] == "half" and row.get(field):
                    lines.setdefault(name, []).append((row["tokens"], row[field]))
    return lines


def utilisation(rows):
    """line -> [(skew, fraction of the limit)], bf16 experts at the largest number of tokens that has several skews."""
    rows = [r for r in rows if r["op"] == "moe_mlp" and r["experts"] == "half" and "fraction_of_limit" in r]
    skewed = [r["tokens"] for r in rows if r["skew"]]
    lines = {}
    for row in rows:
        if skewed and row["tokens"] == max(skewed):
            lines.setdefault(row["layer"], []).append((row["skew"], row["fraction_of_limit"]))
    return max(skewed, default=0), lines


def draw(results):
    rows = results["rows"]
    panels = [{"title": f"{layer}: ms against tokens", "lines": latencies(rows, layer), "log": True, "dashed": ("limit of bf16",)}
              for layer in dict.fromkeys(r["layer"] for r in rows)]
    tokens, lines = utilisation(rows)
    panels.append({"title": f"of the limit against the skew, {tokens} tokens, routes as 1 / rank^skew", "lines": lines})
    return chart.draw("Mixture of experts: moe_mlp", chart.where(results), panels)


if __name__ == "__main__":
    chart.write(sys.argv[2], draw(chart.read(sys.argv[1])))
