"""Line charts as SVG, a panel beside the other: what the families' plot.py draw with.

A panel is a dict: title; lines, {name: [(x, y)]}; log, whether y is logarithmic; zero, whether y begins at 0 (else only as a logarithm); dashed,
the names of lines that are no measurement, such as a limit. The values of x stand at equal distances, in order.
"""
import json
import math
import sys

COLORS = ("#00796b", "#c62828", "#1565c0", "#f9a825", "#6a1b9a", "#546e7a", "#d81b60", "#2e7d32")
WIDTH, HEIGHT, LEFT, TOP = 480, 290, 60, 76


def _name_of(x):
    if isinstance(x, str):
        return x
    if x >= 1 << 30 and x % (1 << 28) == 0:
        return f"{x / (1 << 30):g}G"
    if x >= 1 << 20 and x % (1 << 18) == 0:
        return f"{x / (1 << 20):g}M"
    return f"{x // 1024}k" if x >= 1024 and x % 1024 == 0 else f"{x:g}"


def _marks(values, log):
    if log:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return [10.0**i for i in range(low, max(high, low + 1) + 1)]
    step = 10 ** math.floor(math.log10(max(values))) / 2
    step = next(step * f for f in (0.5, 1, 2, 4, 10) if max(values) / (step * f) <= 6)
    return [step * i for i in range(math.ceil(max(values) / step - 1e-9) + 1)]


def _panel(panel, left, top):
    lines = {name: sorted(line) for name, line in panel["lines"].items() if line}
    log, dashed = panel.get("log", False), panel.get("dashed", ())
    xs = sorted({x for line in lines.values() for x, _ in line})
    marks = _marks([y for line in lines.values() for _, y in line], log)
    at = (lambda v: math.log(v / marks[0]) / math.log(marks[-1] / marks[0])) if log else (lambda v: v / marks[-1])
    x = lambda v: left + LEFT + (WIDTH - LEFT - 24) * (xs.index(v) / max(len(xs) - 1, 1))
    y = lambda v: top + HEIGHT - 36 - (HEIGHT - 36 - TOP) * at(v)
    out = [f'<text x="{left + LEFT}" y="{top + 18}" font-weight="bold">{panel["title"]}</text>']
    for mark in marks:
        out.append(f'<path d="M{left + LEFT} {y(mark):.1f}H{left + WIDTH - 24}" stroke="#e0e0e0"/>'
                   f'<text x="{left + LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:g}</text>')
    out += [f'<text x="{x(v):.1f}" y="{top + HEIGHT - 20}" text-anchor="middle">{_name_of(v)}</text>' for v in xs]
    for i, (name, line) in enumerate(lines.items()):
        color, dash = COLORS[i % len(COLORS)], ' stroke-dasharray="4 3"' if name in dashed else ""
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        if name not in dashed:
            out += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{color}"/>' for a, b in line]
        out.append(f'<text x="{left + LEFT + 200 * (i % 2)}" y="{top + 36 + 14 * (i // 2)}" fill="{color}">{name}</text>')
    return out


def draw(title, where, panels, columns=2):
    """One SVG. where: the device and the commit of what is drawn."""
    panels = [p for p in panels if any(p["lines"].values())]
    body = [line for i, p in enumerate(panels) for line in _panel(p, i % columns * WIDTH, 44 + i // columns * HEIGHT)]
    width, height = WIDTH * min(columns, max(len(panels), 1)), 52 + HEIGHT * math.ceil(len(panels) / columns)
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
                      '<rect width="100%" height="100%" fill="#ffffff"/>', f'<text x="16" y="22" font-size="15" font-weight="bold">{title}</text>',
                      f'<text x="16" y="38" fill="#555555">{where}</text>', *body, "</svg>", ""])


def where(results):
    return f"{results['device']}, commit {results['commit']}"


def read(path):
    with open(path) as file:
        return json.load(file)


def write(path, svg):
    with open(path, "w") as file:
        file.write(svg)
    print(path, file=sys.stderr)
