#!/usr/bin/env python3
"""Time a token against the length of a sequence, beside softmax attention, and decoding's bandwidth against the batch: one SVG.

    benchmarks/linear_attention/plot.py linear_attention.json OUT.svg

The first panel is logarithmic in both: a constant cost a token is a horizontal line.
"""
import json
import math
import sys

COLORS = ("#00796b", "#c62828", "#1565c0")
WIDTH, HEIGHT, LEFT, TOP = 480, 280, 60, 60


def lengths(rows):
    """line -> [(T, microseconds a token)]"""
    lines = {}
    for row in rows:
        if row["op"] != "gated_delta_rule" or row["B"] != 1 or row["states"] or (row["H"], row["HV"]) != (16, 32):
            continue
        for name, field in (("gated_delta_rule", "median_ms"), ("fla", "fla_ms"), ("softmax attention", "softmax_attention_ms")):
            if row.get(field):
                lines.setdefault(name, []).append((row["T"], row[field] * 1e3 / row["T"]))
    return {name: sorted(line) for name, line in lines.items()}


def decoding(rows):
    """line -> [(batch, fraction of the bandwidth)]"""
    lines = {}
    for row in rows:
        if row["T"] != 1 or "fraction_of_bandwidth" not in row:
            continue
        lines.setdefault("gated_delta_rule", []).append((row["B"], row["fraction_of_bandwidth"]))
        if row.get("fla_ms"):
            lines.setdefault("fla", []).append((row["B"], row["fraction_of_bandwidth"] * row["median_ms"] / row["fla_ms"]))
    return {name: sorted(line) for name, line in lines.items()}


def panel(title, lines, left, logarithmic):
    xs = sorted({x for line in lines.values() for x, _ in line})
    values = [y for line in lines.values() for _, y in line]
    if logarithmic:
        low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
        marks = [10**i for i in range(round(math.log10(low)), round(math.log10(high)) + 1)]
        place = lambda v: math.log(v / low) / math.log(high / low)
    else:
        marks = [i / 5 for i in range(6)]
        place = lambda v: v
    x = lambda v: left + LEFT + (WIDTH - LEFT - 24) * (xs.index(v) / max(len(xs) - 1, 1))
    y = lambda v: HEIGHT - 32 - (HEIGHT - 32 - TOP) * place(v)
    out = [f'<text x="{left + LEFT}" y="22" font-weight="bold">{title}</text>']
    for mark in marks:
        out.append(f'<path d="M{left + LEFT} {y(mark):.1f}H{left + WIDTH - 24}" stroke="#e0e0e0"/>'
                   f'<text x="{left + LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:g}</text>')
    out += [f'<text x="{x(v):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{v if v < 1024 else f"{v // 1024}k"}</text>' for v in xs]
    for i, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        out.append(f'<polyline points="{points}" fill="none" stroke="{COLORS[i]}" stroke-width="2"/>')
        out.append(f'<text x="{left + LEFT + 140 * i}" y="42" fill="{COLORS[i]}">{name}</text>')
    return out


def draw(results):
    panels = [("microseconds a token against T, 16/32 heads of 128", lengths(results["rows"]), True),
              ("decoding: of the bandwidth, against the batch", decoding(results["rows"]), False)]
    body = [line for i, (title, lines, log) in enumerate(panels) if lines for line in panel(title, lines, i * WIDTH, log)]
    where = f"{results['device']}, commit {results['commit']}"
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT + 16}" font-family="sans-serif" font-size="11">',
                      '<rect width="100%" height="100%" fill="#ffffff"/>', *body,
                      f'<text x="16" y="{HEIGHT + 10}" fill="#555555">{where}</text>', "</svg>", ""])


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        drawn = draw(json.load(file))
    with open(sys.argv[2], "w") as file:
        file.write(drawn)
