"""README's picture of encoder speed, drawn from a committed result: an SVG without any script.

    python -m xtremely.bench.pictures docs/speed.svg RESULT.json [RESULT.json ...]

A workload that several results have is drawn from the last of them.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

# Contenders as results call them -> as the picture does, best first.
SHOWN = {
    "xtremely native int8": "Xtremely int8",
    "CTranslate2 int8 in streams": "CTranslate2 int8, one stream per core",
    "xtremely native": "Xtremely fp32",
    "CTranslate2 float32 in streams": "CTranslate2 fp32, one stream per core",
    "OpenVINO fp32 in streams": "OpenVINO fp32, one stream per core",
    "optimum onnxruntime": "optimum, onnxruntime fp32",
    "transformers sdpa sorted": "transformers, sdpa, sorted by length",
}
PANELS = {"short": "Sentences (Tatoeba)", "long": "Passages (XQuAD)"}
WIDTH, LABEL, BAR, ROW, GAP = 860, 260, 480, 22, 46  # pixels


def speed_picture(results: list[dict[str, Any]], machine: str) -> str:
    """Bars of median tokens per second, a panel for each workload.

    Args:
        results: those of a file of ``bench.encoders``.
        machine: what they were measured on, for the caption.
    """
    parts, y = [], 14
    for result in results:
        rows = {row["name"]: row["tokens_per_second"] for row in result["rows"]}
        shown = [(label, rows[name]) for name, label in SHOWN.items() if name in rows]
        largest = max(rate["high"] for _, rate in shown)
        parts.append(
            f'<text x="{LABEL}" y="{y}" font-weight="bold">'
            f"{escape(PANELS[result['workload']])}, tokens per second</text>"
        )
        for label, rate in shown:
            y += ROW
            parts += _bar(label, rate, y, BAR / largest)
        y += GAP
    caption = f"{machine}. Medians of interleaved rounds; lines show the range."
    parts.append(f'<text x="0" y="{y - 18}" fill="#666">{escape(caption)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - 8}" width="{WIDTH}"'
        ' font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{chr(10).join(parts)}\n</svg>\n'
    )


def _bar(label: str, rate: dict[str, float], y: int, scale: float) -> list[str]:
    """A label, a bar, its range and its number; ``scale`` is pixels per token per second."""
    colour = "#0a7d5a" if label.startswith("Xtremely") else "#9aa3ad"
    low, middle, high = (LABEL + rate[key] * scale for key in ("low", "median", "high"))
    return [
        f'<text x="{LABEL - 8}" y="{y}" text-anchor="end">{escape(label)}</text>',
        f'<rect x="{LABEL}" y="{y - 12}" width="{middle - LABEL:.0f}" height="15"'
        f' fill="{colour}"/>',
        f'<line x1="{low:.0f}" x2="{high:.0f}" y1="{y - 4}" y2="{y - 4}" stroke="#333"/>',
        f'<text x="{high + 8:.0f}" y="{y}">{rate["median"]:,.0f}</text>',
    ]


def main(target: str, *sources: str) -> None:
    """Draw the picture of one or several result files."""
    found = [json.loads(Path(source).read_text(encoding="utf-8")) for source in sources]
    results = {one["workload"]: one for file in found for one in file["results"]}
    about = found[-1]["machine"]
    machine = f"{about['cores']} cores of an {about['processor']} ({about['vector_unit']})"
    Path(target).write_text(speed_picture([*results.values()], machine), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
