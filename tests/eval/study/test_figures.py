"""What a study's page draws first, by hand."""

import re
from pathlib import Path

import pytest

from xtremely.eval.study.cells import collected
from xtremely.eval.study.figures import label_width, maps, parts
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.report import write_study_report

ROOT = Path(__file__).parents[3]


def test_one_map_is_drawn_of_every_task_in_its_first_metric():
    keys = ("grid", "model", "part", "task", "title", "metric")
    rows = [
        ("g", "m", "pos", "udpos", "Parts", "accuracy"),
        ("g", "m", "pos", "udpos", "Parts", "f1"),
        ("g", "m", "pos", "udpos", "Parts, runs that learnt", "accuracy"),
        ("g", "m", "qa", "xquad", "Answers", "f1"),
        ("h", "m", "pos", "udpos", "Parts of another grid", "accuracy"),
    ]
    tables = [dict(zip(keys, row, strict=True)) for row in rows]
    assert [number for number, _ in maps(tables)] == [1, 4, 5]
    assert {title: [n for n, _ in own] for title, own in parts(tables).items()} == {
        "Parts": [1, 2],
        "Parts, runs that learnt": [3],
        "Answers": [4],
        "Parts of another grid": [5],
    }


def test_the_longest_name_of_a_map_has_room():
    # "English + Mandarin + Arabic" has 27 characters.
    assert label_width({"rows": {"en": {}, "en+zh+ar": {}}}) == round(14 + 6.4 * 27)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    results = collected(ROOT / "results" / "study" / "ner.json")
    write_study_report([read_grid(ROOT / "studies" / "ner.toml")], results, out)
    return (out / "report.html").read_text(encoding="utf-8")


def test_a_study_begins_with_its_maps_and_has_a_short_table_of_contents(page):
    main = page.partition("<main>")[2]
    assert main.index("<svg") < main.index("<table")
    assert main.count("<figure") == 1
    contents = page.partition("<nav>")[2].partition("</nav>")[0]
    targets = re.findall(r'href="#([^"]+)"', contents)
    assert targets == ["maps", "all", "p1", "cells"]
    assert all(f'id="{target}"' in page for target in re.findall(r'href="#([^"]+)"', page))


def test_every_table_of_a_study_scrolls_in_a_box_of_its_own(page):
    assert page.count("<table") == page.count('<div class="scroll"><table')
