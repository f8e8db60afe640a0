"""Pictures of benchmarks: the right lengths and numbers, in files that a browser shows alone."""

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from xtremely.bench.pictures import BAR, LABEL, encoder_speeds, main, named, speed_picture
from xtremely.bench.plots import growth

RESULTS = Path(__file__).parents[2] / "bench" / "results"
SVG = "{http://www.w3.org/2000/svg}"


def row(name, median, withheld="", cosine=1.0):
    rate = {"median": median, "low": median / 2, "high": 2 * median}
    return {"name": name, "tokens_per_second": rate, "withheld": withheld, "cosine_mean": cosine}


def index(name, rows, seconds, **more):
    search = {"processor_seconds": seconds}
    return {"index": name, "rows": rows, "queries": 1000, "search": search, **more}


def texts(picture):
    return [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_bars_are_as_long_as_the_medians_with_the_longest_range_filling_the_width():
    rows = [row("a < b", 100.0), row("xtremely native", 400.0, cosine=0.9998)]
    picture = encoder_speeds([{"workload": "short", "rows": rows}], "a machine")
    bars = ElementTree.fromstring(picture).findall(f"{SVG}rect")[1:]
    assert [float(bar.get("width")) for bar in bars] == [BAR / 2, BAR / 8]
    assert {bar.get("x") for bar in bars} == {str(LABEL)}
    shown = texts(picture)
    assert shown.index("xtremely native") < shown.index("a < b")
    assert "400" in shown and "cosine 0.9998" in shown


def test_what_was_withheld_is_not_drawn():
    rows = [row("good", 100.0), row("wrong", 900.0, withheld="cosine 0.2")]
    assert "wrong" not in encoder_speeds([{"workload": "long", "rows": rows}], "a machine")


def test_the_picture_of_the_readme_is_that_of_its_results(tmp_path):
    main(str(tmp_path / "speed.svg"), str(RESULTS / "encoders-amd-epyc-2026-11-30.json"))
    committed = Path(__file__).parents[2] / "docs" / "speed.svg"
    assert (tmp_path / "speed.svg").read_bytes() == committed.read_bytes()


def test_growth_draws_a_line_for_each_family_of_indexes():
    rows = [index("IVF16,Flat", 1000, 1.0), index("IVF64,Flat", 100_000, 10.0)]
    rows += [index("exact", 10_000, 100.0, recall={"4": 0.5}, bytes=40_000)]
    rows[0] |= {"build": {"processor_seconds": 3.0}, "recall": {"4": 1.0}, "bytes": 4000}
    picture = growth(rows)
    shown = texts(picture)
    assert shown.count("IVF,Flat") == 1 and shown.count("exact") == 1
    assert {"1", "100", "3", "4", "0.5"} <= set(shown)  # ms per query, seconds, bytes, recall
    search = ElementTree.fromstring(picture).findall(f"{SVG}g")[1]
    (first, last), (middle,) = (
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in search.iter(f"{SVG}polyline")
    )
    # 1, 10 and 100 ms at 1,000, 100,000 and 10,000 vectors, both on a logarithmic scale
    assert math.isclose(middle[0], (first[0] + last[0]) / 2, abs_tol=1)
    assert math.isclose(last[1], (first[1] + middle[1]) / 2, abs_tol=1)
    assert middle[1] < first[1]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.svg")), ids=lambda path: path.name)
def test_a_committed_picture_is_that_of_its_result(path):
    found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if "indexes" in found:
        drawn = growth(found["indexes"])
    else:
        drawn = encoder_speeds(found["results"], named(found["machine"]))
    assert path.read_text(encoding="utf-8") == drawn


def test_speeds_of_the_readme_leave_out_contenders_that_it_does_not_name():
    rows = [row("xtremely native", 10.0), row("xtremely packed", 9.0)]
    picture = speed_picture([{"workload": "short", "rows": rows}], "a machine")
    assert "Xtremely fp32" in picture and "packed" not in picture
