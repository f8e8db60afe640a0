"""Charts of benchmarks as SVG, which browsers show without scripts or the network.

    python -m xtremely.bench.pictures docs/speed.svg RESULT.json [RESULT.json ...]

draws README's chart of encoder speed from committed results. A workload that is in several results
is drawn from the last one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

# Name of a contender in results -> its name in README's chart, best first.
SHOWN = {
    "xtremely native int8": "Xtremely int8",
    "OpenVINO int8 (NNCF) in streams": "OpenVINO int8, one stream per core",
    "CTranslate2 int8 in streams": "CTranslate2 int8, one stream per core",
    "xtremely native": "Xtremely fp32",
    "CTranslate2 float32 in streams": "CTranslate2 fp32, one stream per core",
    "OpenVINO fp32 in streams": "OpenVINO fp32, one stream per core",
    "optimum onnxruntime": "optimum, onnxruntime fp32",
    "llama.cpp Q8_0": "llama.cpp, Q8_0",
    "transformers sdpa sorted": "transformers, sdpa, sorted by length",
    "fastembed": "fastembed",
}
WORKLOADS = {"short": "Sentences (Tatoeba)", "long": "Passages (XQuAD)"}
WIDTH, LABEL, BAR, ROW, GAP = 860, 260, 480, 22, 46  # pixels


class Bar(NamedTuple):
    """A contender's rate."""

    label: str
    rate: dict[str, float]  # median, low and high, tokens per second
    remark: str = ""


def speed_picture(results: Sequence[dict[str, Any]], machine: str) -> str:
    """README's chart: the contenders of ``SHOWN``, with one panel per workload.

    Args:
        results: the results in files of ``bench.encoders``.
        machine: the machine that they were measured on, for the caption.
    """
    panels = {}
    for result in results:
        rates = {row["name"]: row["tokens_per_second"] for row in result["rows"]}
        panels[result["workload"]] = [
            Bar(label, rates[name]) for name, label in SHOWN.items() if name in rates
        ]
    return bars(panels, machine)


def encoder_speeds(results: Sequence[dict[str, Any]], machine: str) -> str:
    """Every contender that was not withheld, fastest first, with its cosine to the reference."""
    panels = {}
    for result in results:
        rows = [row for row in result["rows"] if not row["withheld"]]
        rows.sort(key=lambda row: -row["tokens_per_second"]["median"])
        panels[result["workload"]] = [
            Bar(row["name"], row["tokens_per_second"], f"cosine {row['cosine_mean']:.4f}")
            for row in rows
        ]
    return bars(panels, machine)


def bars(panels: dict[str, list[Bar]], machine: str) -> str:
    """Bars of median tokens per second with their ranges.

    Args:
        panels: workload -> its bars, from the top.
        machine: the machine that they were measured on, for the caption.
    """
    parts, y = [], 14
    for workload, shown in panels.items():
        scale = BAR / max(bar.rate["high"] for bar in shown)
        title = f"{WORKLOADS[workload]}, tokens per second"
        parts.append(text(LABEL, y, title, 'font-weight="bold"'))
        for bar in shown:
            y += ROW
            parts += _drawn(bar, y, scale)
        y += GAP
    caption = f"{machine}. Medians of interleaved rounds; lines show the range."
    parts.append(text(0, y - 18, caption, 'fill="#666"'))
    return svg(parts, WIDTH, y - 8)


def _drawn(bar: Bar, y: int, scale: float) -> list[str]:
    """A label, a bar, its range and its number; ``scale`` is pixels per token per second."""
    own = bar.label.lower().startswith("xtremely")
    colour, ink = ("#0a7d5a", "white") if own else ("#9aa3ad", "black")
    low, middle, high = (LABEL + bar.rate[key] * scale for key in ("low", "median", "high"))
    inside = text(LABEL + 6, y, bar.remark, f'fill="{ink}" font-size="11"')
    return [
        text(LABEL - 8, y, bar.label, 'text-anchor="end"'),
        f'<rect x="{LABEL}" y="{y - 12}" width="{middle - LABEL:.0f}" height="15"'
        f' fill="{colour}"/>',
        f'<line x1="{low:.0f}" x2="{high:.0f}" y1="{y - 4}" y2="{y - 4}" stroke="#333"/>',
        *([inside] if bar.remark else []),
        text(f"{high + 8:.0f}", y, f"{bar.rate['median']:,.0f}"),
    ]


def text(x: float | str, y: float | str, content: str, more: str = "") -> str:
    """An SVG text element; ``more`` are further attributes."""
    return f'<text x="{x}" y="{y}"{" " * bool(more)}{more}>{escape(content)}</text>'


def svg(parts: Sequence[str], width: int, height: int) -> str:
    """An SVG image of these parts on white."""
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        ' font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
    )


def named(machine: dict[str, Any]) -> str:
    """The name of a result's machine, for a caption."""
    return f"{machine['cores']} cores of an {machine['processor']} ({machine['vector_unit']})"


def main(target: str, *sources: str) -> None:
    """Draw README's chart from one or several result files."""
    found = [json.loads(Path(source).read_text(encoding="utf-8")) for source in sources]
    results = {one["workload"]: one for file in found for one in file["results"]}
    picture = speed_picture([*results.values()], named(found[-1]["machine"]))
    Path(target).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
