#!/usr/bin/env python3
"""TFLOP/s against the length, the speed-up of sparse attention against the share of pairs that is left out, decoding's bandwidth against the bytes
of keys and values: one SVG from the results of three scripts.

    benchmarks/attention/plot.py attention.json sparse_attention.json kv_cache.json OUT.svg
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import chart  # noqa: E402

PEERS = (("", ""), ("torch sdpa", "sdpa "))


def lengths(rows):
    lines = {}
    for row in rows:
        if row["op"] == "attention" and row["dim"] == 128 and "causal" in row["case"] and row["dtype"] == "bf16" and row.get("window", -1) < 0:
            for peer, field in PEERS:
                if row.get(field + "median_ms"):
                    lines.setdefault(peer or "attention", []).append((row["length"], row["operations"] / row[field + "median_ms"] / 1e9))
    return lines


def speed_ups(rows):
    """line -> [(per cent of the pairs that are left out, times the dense attention)]; the ideal is 1 / what remains."""
    lines, shares = {}, set()
    for row in rows:
        if not row.get("speed_up") or not row.get("kept") or row["op"] == "nsa_attention":
            continue
        if row["op"] == "nsa_selected_attention" and not row["case"].startswith("G 16, order query"):
            continue
        name, case = row["op"], row["case"]
        if name == "block_sparse_attention":
            name += ", " + case.split(",")[0]
        elif name == "neighborhood_attention":
            name += ", stride 1" if case.endswith("(1,)") else ", stride" if case.startswith("1-D") else " 2-D"
        left_out = round(100 * (1 - row["kept"]), 1)
        lines.setdefault(name, {}).setdefault(left_out, row["speed_up"])
        shares.add(left_out)
    result = {"ideal": [(s, 100 / (100 - s)) for s in shares if s < 100]}
    result.update({name: list(points.items()) for name, points in lines.items()})
    return result


def decoding(results):
    lines = {}
    for row in results["rows"]:
        if row["op"] == "paged_attention" and row["dtype"] == "bf16" and (row["heads"], row["kv_heads"]) == (32, 8):
            for peer, field in PEERS:
                if row.get(field + "median_ms"):
                    lines.setdefault(peer or "paged_attention", []).append((row["kv_bytes"], row["kv_bytes"] / row[field + "median_ms"] / 1e6))
    bandwidth = results.get("bandwidth_gb_s") or results.get("limits", {}).get("bandwidth_gb_s")
    if bandwidth and lines:
        lines["memory"] = [(at, bandwidth) for at, _ in next(iter(lines.values()))]
    return lines


def draw(attention, sparse, kv_cache):
    return chart.draw("Attention", chart.where(attention), [
        {"title": "causal prefill, d 128, bf16: TFLOP/s against the length", "lines": lengths(attention["rows"])},
        {"title": "speed-up over dense against % of the pairs left out", "lines": speed_ups(sparse["rows"] + kv_cache["rows"]), "dashed": ("ideal",), "log": True},
        {"title": "decoding, 32 heads over 8, bf16: GB/s against bytes of keys and values", "lines": decoding(attention), "dashed": ("memory",)}])


if __name__ == "__main__":
    chart.write(sys.argv[4], draw(*map(chart.read, sys.argv[1:4])))
