"""Every page and picture of the repository is shown whole without the network."""

from pathlib import Path

import pytest
from offline import loaded
from report_pages import mined, record

from xtremely.eval.report.html import write_report
from xtremely.eval.study.cells import collected
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.report import write_study_report

ROOT = Path(__file__).parent.parent
COMMITTED = [
    path
    for folder in ("bench", "docs", "eval", "results")
    for ending in ("html", "svg")
    for path in sorted((ROOT / folder).rglob(f"*.{ending}"))
]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_committed_page_loads_nothing(path):
    assert not loaded(path.read_text(encoding="utf-8"))


def test_a_written_report_loads_nothing(tmp_path):
    write_report(tmp_path / "report.html", [record(layer=n, headline=n == 2) for n in (1, 2)])
    assert not loaded((tmp_path / "report.html").read_text(encoding="utf-8"))
    write_report(tmp_path / "report.html", [mined()])
    assert not loaded((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_a_written_study_loads_nothing(tmp_path):
    grid = read_grid(ROOT / "studies" / "ner.toml")
    results = collected(ROOT / "results" / "study" / "ner.json")[:6]
    write_study_report([grid], results, tmp_path)
    assert not loaded((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        '<script src="https://cdn.plot.ly/plotly.min.js"></script>',
        '<link rel="stylesheet" href="style.css">',
        '<img src="//example.org/a.png">',
        '<img srcset="a.png 2x">',
        '<svg><image xlink:href="a.png"/></svg>',
        "<style>@import 'a.css';</style>",
        "<style>p { background: url(a.png) }</style>",
        "<p style=\"background: url('http://example.org')\">",
        '<script type="module">1</script>',
        "<script>import {a} from 'https://example.org/a.js'</script>",
    ],
)
def test_what_a_browser_would_load_is_found(source):
    assert loaded(source)


def test_what_lies_inside_the_page_is_not_loaded():
    inside = '<a href="#top">top</a><img src="data:image/png;base64,AA"><style>p { color: red }'
    assert not loaded(inside)
