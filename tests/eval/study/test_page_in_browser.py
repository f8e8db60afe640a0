"""The study page as a browser lays it out, in headless Chromium."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xtremely.eval.study.cells import collected
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.report import write_study_report

ROOT = Path(__file__).parents[3]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HEIGHT = 800
# What is looked at: names of tables wider than their boxes, rows whose cells are not in one line
# or not below their headings, the end of the table of contents, and what stands first.
LOOK = """
for (const one of document.querySelectorAll("details")) one.open = true;
const box = (element) => element.getBoundingClientRect();
const wide = [], crooked = [];
for (const table of document.querySelectorAll("table")) {
  const name = table.parentElement.previousElementSibling?.textContent.slice(0, 60);
  if (table.scrollWidth > table.closest(".scroll").clientWidth + 1) wide.push(name);
  const heads = [...table.tHead.rows[0].cells];
  for (const row of table.tBodies[0].rows) {
    const cells = [...row.cells];
    const straight = cells.length === heads.length && cells.every((cell, place) =>
      Math.abs(box(cell).top - box(cells[0]).top) < 1 &&
      Math.abs(box(cell).left - box(heads[place]).left) < 1);
    if (!straight) crooked.push(name);
  }
}
const seen = {
  wide, crooked, width: document.documentElement.scrollWidth, screen: window.innerWidth,
  contents: box(document.querySelector("header nav")).bottom,
  tables: document.querySelectorAll("table").length,
  first: document.querySelector("main svg").textContent.slice(0, 200),
};
const told = document.createElement("pre");
told.id = "seen";
told.textContent = JSON.stringify(seen);
document.body.append(told);
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A report of few languages, intermediate phases and layers, and one of many languages."""
    found = {}
    for name in ("intermediate", "ner"):
        found[name] = tmp_path_factory.mktemp(name)
        results = collected(ROOT / "results" / "study" / f"{name}.json")
        write_study_report([read_grid(ROOT / "studies" / f"{name}.toml")], results, found[name])
        found[name] /= "report.html"
    committed = ROOT / "results" / "study"
    return {**found, "report": committed / "report.html", "target": committed / "target.html"}


def look(page, folder, width):
    """What LOOK finds on a page in a window of this width."""
    text = page.read_text(encoding="utf-8")
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'  # it forbids all scripts
    changed, count = re.subn(policy, "", text)
    assert count == 1
    copy = folder / "page.html"
    copy.write_text(changed.replace("</body>", f"<script>{LOOK}</script></body>"), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{HEIGHT}"]
    made = subprocess.run(
        [*command, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    told = re.search(r'<pre id="seen">(.*?)</pre>', made.stdout, re.S)
    assert told, made.stderr
    return json.loads(told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 1024])
@pytest.mark.parametrize("name", ["intermediate", "ner", "report", "target"])
def test_the_page_fits_its_window(reports, tmp_path, name, width):
    seen = look(reports[name], tmp_path, width)
    assert seen["screen"] == width and seen["tables"] > 5
    assert seen["wide"] == [] and seen["width"] <= width
    assert seen["crooked"] == []
    assert seen["contents"] < HEIGHT / 2, "the table of contents and what comes first, together"
    if name in ("intermediate", "report"):
        assert seen["first"].strip().startswith("intermediate: difference in points")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_table_that_is_too_wide_is_seen(reports, tmp_path):
    """The look itself can fail: a column that does not fit, and a row of a cell too few."""
    text = reports["ner"].read_text(encoding="utf-8")
    page = tmp_path / "wide.html"
    page.write_text(text.replace("<tbody>", f"<tbody><tr><td>{'x' * 400}</td></tr>", 1), "utf-8")
    seen = look(page, tmp_path, 1280)
    assert len(seen["wide"]) == 1 and len(seen["crooked"]) == 1
