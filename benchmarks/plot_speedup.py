#!/usr/bin/env python3
"""The speed-up over the dense product against the number of tokens, as in the MARLIN paper: one SVG from one JSON of results.

    benchmarks/plot_speedup.py RESULTS.json OUT.svg

A panel for each layer with int4 rows; a line for the library and one for each int4 peer of the same run. The dense product is
cuBLAS in bf16, or OpenBLAS in f32.
"""
import json
import math
import sys

DENSE = ("cublas_bf16", "openblas_f32")
COLORS = ("#00796b", "#c62828", "#1565c0", "#f9a825", "#6a1b9a")
WIDTH, HEIGHT, LEFT, TOP, COLUMNS = 460, 260, 52, 64, 2


def panels(rows):
    """layer -> line -> [(m, speed-up)], of the operands that have the most rows."""
    rows = [r for r in rows if r["op"] == "w4a16_gemm"]
    if not rows:
        return {}
    operands = [r["operands"] for r in rows]
    principal = max(dict.fromkeys(operands), key=operands.count)
    result = {}
    for row in rows:
        dense = next((d for d in DENSE if f"{d} median_ms" in row), None)
        if not dense or row["operands"] != principal:
            continue
        lines = result.setdefault(f"{row['model']} {row['layer']}, {row['n']} x {row['k']}, over {dense.replace('_', ' ')}", {})
        base = row[f"{dense} median_ms"]
        lines.setdefault("w4a16_gemm", []).append((row["m"], base / row["median_ms"]))
        for key, ms in row.items():
            peer = key.removesuffix(" median_ms")
            if peer != key and peer not in DENSE:
                lines.setdefault(peer, []).append((row["m"], base / ms))
    return {title: lines for title, lines in result.items() if len(lines["w4a16_gemm"]) > 1}


def panel(title, lines, left, top):
    tokens = sorted({m for line in lines.values() for m, _ in line})
    most = max(s for line in lines.values() for _, s in line)
    step = 10 ** math.floor(math.log10(most)) / 2
    step = next(step * f for f in (0.5, 1, 2, 4, 10) if most / (step * f) <= 6)
    top_value = math.ceil(most / step) * step
    x = lambda m: left + LEFT + (WIDTH - LEFT - 24) * (tokens.index(m) / max(len(tokens) - 1, 1))
    y = lambda s: top + HEIGHT - 36 - (HEIGHT - 36 - TOP) * s / top_value
    out = [f'<text x="{left + LEFT}" y="{top + 18}" font-weight="bold">{title}</text>']
    value = 0.0
    while value <= top_value + step / 2:
        out.append(f'<path d="M{left + LEFT} {y(value):.1f}H{left + WIDTH - 24}" stroke="#e0e0e0"/>'
                   f'<text x="{left + LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
        value += step
    out.append(f'<path d="M{left + LEFT} {y(1):.1f}H{left + WIDTH - 24}" stroke="#757575" stroke-dasharray="4 3"/>')
    for m in tokens:
        out.append(f'<text x="{x(m):.1f}" y="{top + HEIGHT - 20}" text-anchor="middle">{m}</text>')
    for i, (name, line) in enumerate(lines.items()):
        color = COLORS[i % len(COLORS)]
        points = " ".join(f"{x(m):.1f},{y(s):.1f}" for m, s in line)
        out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        out += [f'<circle cx="{x(m):.1f}" cy="{y(s):.1f}" r="3" fill="{color}"/>' for m, s in line]
        column, row = i % 2, i // 2
        out.append(f'<text x="{left + LEFT + 190 * column}" y="{top + 36 + 14 * row}" fill="{color}">{name}</text>')
    return out


def draw(results):
    body = []
    layers = panels(results["rows"])
    for i, (title, lines) in enumerate(layers.items()):
        body += panel(title, lines, i % COLUMNS * WIDTH, 44 + i // COLUMNS * HEIGHT)
    width = WIDTH * min(COLUMNS, max(len(layers), 1))
    height = 52 + HEIGHT * math.ceil(len(layers) / COLUMNS)
    where = f"{results['device']}, commit {results['commit']}; speed-up against the number of tokens M"
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
                      '<rect width="100%" height="100%" fill="#ffffff"/>',
                      '<text x="16" y="22" font-size="15" font-weight="bold">int4 weights over the dense product</text>',
                      f'<text x="16" y="38" fill="#555555">{where}</text>', *body, "</svg>", ""])


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        drawn = draw(json.load(file))
    with open(sys.argv[2], "w") as file:
        file.write(drawn)
