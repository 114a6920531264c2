#!/usr/bin/env python3
"""The rows of results as Markdown: what documents quote.

    benchmarks/common/table.py RESULTS.json ...
"""
import sys

import chart

PLAIN = {"op", "case", "plan", "rms_ratio", "median_ms", "p10_ms", "p90_ms", "repetitions", "bytes", "operations", "gb_s", "tflop_s", "limit", "limit_ms",
         "fraction_of_limit", "fraction_of_bandwidth"}


def case_of(row):
    if "case" in row:
        return row["case"] + (f" {row['dtype']}" if row.get("dtype") == "f32" else "") + (f", {row['tokens']} tokens" if "kv_heads" in row and "tokens" in row else "")
    if "layer" in row:
        return " ".join([f"{row['layer']}, {row['tokens']} tokens"] + ([f"{row['experts']}, skew {row['skew']:g}"] if "experts" in row else []))
    return f"{row['B']} x {row['T']}, heads {row['H']}/{row['HV']}, {row['K']} x {row['V']}" + (", with states" if row["states"] else "")


def table(results):
    lines = [f"### {results['benchmark']}: {results['device']}, {results.get('detail', '')}, commit {results['commit']}", "",
             f"Limits: {results.get('bandwidth_gb_s', 0):.1f} GB/s, {results.get('f32_tflop_s', 0) * 1e3:.0f} GFLOP/s in f32; load {results['load_average']:.2f} at the start.", "",
             "| operator | case | ms | p10 to p90 | GB/s | GFLOP/s | of the limit | peers: ms (how many times ours) |", "|---|---|---|---|---|---|---|---|"]
    for row in results["rows"]:
        if "median_ms" not in row:
            continue
        peers = [key.removesuffix(" median_ms") for key in row if key.endswith(" median_ms")]
        beside = ", ".join(f"{p} {row[f'{p} median_ms']:.4g} ({row[f'speed_over {p}']:.2f})" for p in peers)
        lines.append(f"| `{row['op']}` | {case_of(row)} | {row['median_ms']:.4g} | {row['p10_ms']:.3g} to {row['p90_ms']:.3g} | {row['gb_s']:.1f} | "
                     f"{row['tflop_s'] * 1e3:.0f} | {row.get('fraction_of_limit', 0):.0%} ({row.get('limit', '-')}) | {beside} |")
    return lines + [""]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print("\n".join(table(chart.read(path))))
