"""A study's answer: its picture, paragraph and table, from made-up results of the shipped grid."""

import os
import re
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import pytest
from study_results import made, value

from xtremely.eval.study import answer
from xtremely.eval.study.answer import answer_lines, answer_picture, begun, difference_text, judged
from xtremely.eval.study.contrasts import contrasts
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.report import write_study_report
from xtremely.kernels.guard import InputError

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def grid(request):
    return read_grid(request.config.rootpath / "studies" / "intermediate.toml")


def analysed(grid, wanted=lambda cell: True):
    (found,) = contrasts([grid], [made(cell) for cell in grid.cells if wanted(cell)])
    return found


@pytest.fixture(scope="module")
def whole(grid):
    return analysed(grid)


@pytest.fixture(scope="module")
def first(grid):
    """One seed of parts of speech, as a study begins."""
    return analysed(grid, lambda cell: cell.seed == 1 and cell.part == "pos")


def test_a_finished_study_is_decided_in_words(whole):
    """In the made-up results Mandarin is 4 points better than English and Arabic 0.2."""
    text = "\n".join(answer_lines([whole]))
    assert text.startswith("**intermediate: decided.**\n118 of 118 cells are finished.")
    assert "The primary contrasts have 3 seeds in every task." in text
    mandarin = r"Mandarin instead of English: \+[34]\.\d \(.*\), more than 2 better \(on average"
    arabic = r"Arabic instead of English: \+0\.\d \(.*\), less than 2 either way \(on average"
    assert re.search(mandarin + " over 6 of 6 tasks", text)
    assert re.search(arabic + " over 6 of 6 tasks", text)
    (row,) = re.findall(r"^\| udpos \| (.*) \|$", text, re.M)
    english, elsewhere, *differences = row.split(" | ")
    levels = whole["all runs"]["comparisons"][0]["arms"]["en"]
    assert english == f"{levels['English']:.1f}" and elsewhere == f"{levels['zero-shot']:.1f}"
    assert float(english) == pytest.approx(90, abs=0.2)
    assert float(elsewhere) == pytest.approx(71, abs=0.2)
    assert ["better" in one for one in differences] == [True, False, False]
    assert "| Mandarin − English | Arabic − English | English − no intermediate phase |" in text
    assert float(differences[2].split(" ")[0]) == pytest.approx(1, abs=0.2)


def test_one_seed_decides_nothing(first):
    text = "\n".join(answer_lines([first]))
    assert "**intermediate: not decided.**\n6 of 118 cells are finished." in text
    assert "The primary contrasts have 1 seed so far; a statement needs 3 in every task." in text
    assert re.search(r"English: \+\d\.\d, too few seeds \(1\) \(on average over 1 of 6", text)
    assert text.count("| not run yet | not run yet | not run yet |") == 10
    assert "(+" not in text and "better" not in text, "no interval and no verdict"


def test_three_seeds_of_some_tasks_are_not_enough(grid):
    found = analysed(grid, lambda cell: cell.part in ("pos", "names"))
    text = "\n".join(answer_lines([found]))
    assert "have 3 seeds so far; a statement needs 3 in every task." in text


def test_the_picture_has_intervals_where_there_are_seeds(whole, first):
    for found, solid in ((whole, True), (first, False)):
        picture = ElementTree.fromstring(answer_picture([found]))
        dots = [one.get("fill") for one in picture.iter(f"{SVG}circle")]
        assert len(dots) == (26 if solid else 6), "two contrasts of each row with a value"
        assert all((colour == "white") is not solid for colour in dots)
        ranges = [one for one in picture.iter(f"{SVG}line") if one.get("stroke-width") == "3"]
        assert len(ranges) == (26 if solid else 0)
        words = [one.text for one in picture.iter(f"{SVG}text")]
        assert ("not run yet" in words) is not solid
        assert any("too few seeds" in word for word in words) is not solid


def test_marks_stand_where_their_points_are(monkeypatch):
    """By hand: an axis from 100 to 300 for -20 to +20 points."""
    monkeypatch.setattr(answer, "LABEL", 100)
    monkeypatch.setattr(answer, "AXIS", 200)
    around = {"low": -10.0, "high": 15.0, "level": 0.95}
    one = {"value": 5.0, "interval": around, "verdict": "cannot tell", "seeds": 3}
    line, dot = map(ElementTree.fromstring, answer._mark(one, 0, 20.0, "red"))
    assert (line.get("x1"), line.get("x2"), dot.get("cx")) == ("150.0", "275.0", "225.0")
    band = answer._axis("", 0, 2.0, 20.0, 10)[4]
    assert ElementTree.fromstring(band).get("x") == "190.0"
    assert ElementTree.fromstring(band).get("width") == "20.0"


def test_nothing_is_drawn_outside_the_picture(whole):
    picture = ElementTree.fromstring(answer_picture([whole, whole]))
    width, height = map(float, picture.get("viewBox").split()[2:])
    for one in picture.iter():
        for key, most in (("cx", width), ("x", width), ("x2", width), ("cy", height)):
            assert 0 <= float(one.get(key) or 0) <= most
        if one.tag == f"{SVG}text":
            assert float(one.get("y")) <= height


@pytest.mark.parametrize(
    ("verdict", "points", "seeds", "words"),
    [
        ("larger", 3.0, 3, "more than 2 better"),
        ("larger", -3.0, 3, "more than 2 worse"),
        ("smaller", -0.1, 3, "less than 2 either way"),
        ("cannot tell", 3.0, 3, "cannot tell"),
        ("cannot tell", 3.0, 2, "too few seeds (2)"),
    ],
)
def test_verdicts_in_words(verdict, points, seeds, words):
    around = {"low": points - 1, "high": points + 1, "level": 0.95}
    one = {"value": points, "verdict": verdict, "seeds": seeds, "interval": around}
    assert judged(one, 2.0) == words
    assert difference_text(one, 2.0).endswith(f"), {words}")


def test_english_that_has_not_recovered_stays_undecided(grid):
    """Five points lost in English after Mandarin: however large the difference, no statement."""

    def lost(cell, task, code):
        away = 5.0 if cell.source == "zh" and code == "en" else 0.0
        return value(cell, task, code) - away

    (found,) = contrasts([grid], [made(cell, lost) for cell in grid.cells])
    text = "\n".join(answer_lines([found]))
    assert "not decided" in text
    assert re.search(r"Mandarin instead of English: .*, cannot tell \(on average", text)
    assert re.search(r"Arabic instead of English: .*, less than 2 either way", text)


def test_tasks_that_have_recovered_are_averaged_beside(grid):
    """Five points lost in English in Mandarin's answers: the other three tasks say 4 points."""

    def lost(cell, task, code):
        away = 5.0 if (cell.source, cell.part, code) == ("zh", "answers", "en") else 0.0
        return value(cell, task, code) - away

    (found,) = contrasts([grid], [made(cell, lost) for cell in grid.cells])
    lines = [*answer_lines([found])]
    place = lines.index(
        "English has not recovered in answers after zh. On the other tasks (95 %, not corrected):"
    )
    mandarin = r"Mandarin instead of English: \+4\.\d \(\S+ to \S+\), more than 2 better"
    assert re.fullmatch(mandarin + r" \(udpos, panx, pawsx\)\.", lines[place + 1])
    assert "Arabic" not in lines[place + 2], "Arabic's six tasks have all recovered"
    (row,) = [
        line for line in lines if line.startswith("| average of the 3 or 6 recovered tasks |")
    ]
    assert row.split(" | ")[3].endswith("more than 2 better")
    assert "cannot tell" in next(line for line in lines if line.startswith("| average of 6 of 6"))
    picture = ElementTree.fromstring(answer_picture([found]))
    words = [one.text for one in picture.iter(f"{SVG}text")]
    assert "average of the 3 or 6 recovered tasks" in words
    assert not any("recovered tasks" in line for line in answer_lines([analysed(grid)]))


def test_runs_that_learnt_nothing_are_left_out_beside(grid):
    """One Arabic phase learnt nothing: its runs are counted, and the answer is told both ways."""

    def nothing(cell, task, code):
        if (cell.source, cell.seed, task, cell.part) == ("ar", 3, "xnli", "after"):
            return 34.0
        return value(cell, task, code)

    (found,) = contrasts([grid], [made(cell, nothing) for cell in grid.cells])
    text = "\n".join(answer_lines([found]))
    assert f"{len(found['failed'])} runs learnt nothing. Without them:" in text
    with_them, _, without = text.partition("Without them:")
    assert "Arabic instead of English" in with_them and "too few seeds (2)" in without


def test_a_page_gets_its_answer_and_picture_in_their_place(grid, tmp_path):
    results = [made(cell) for cell in grid.cells if cell.part == "pos" and cell.seed == 1]
    for one in results:
        one["evaluation"]["device"] = "cpu"
    page = tmp_path / "STUDY.md"
    page.write_text("Before\n<!-- answer -->\nold\n<!-- end of answer -->\nBetween\n"
                    "<!-- tables -->\n<!-- end of tables -->\nAfter\n")  # fmt: skip
    found = write_study_report([grid], results, tmp_path / "out", page)
    text = page.read_text()
    words = ("Before", "![", "(STUDY.svg)", "not decided", "Between", "## All tasks", "After\n")
    places = [text.index(word) for word in words]
    assert places == sorted(places) and "old" not in text
    assert (tmp_path / "STUDY.svg").read_text() == answer_picture(found["contrasts"])
    html = (tmp_path / "out" / "report.html").read_text()
    assert answer_picture(found["contrasts"], alone=False) in html
    assert html.index('id="answer"') < html.index('id="maps"')
    (row,) = re.findall(r'<th scope="row">zh</th><td>1</td>.*?</tr>', html, re.S)
    assert re.findall(r">([+-]\d\.\d)", row) == [
        f"{one['each'][0]['value']:+.1f}"
        for name in ("zh - en", "zh - none")
        for one in found["contrasts"][0]["all runs"]["contrasts"]
        if one["name"] == name
    ]


@pytest.mark.parametrize("name", ["my study (2).md", os.fsdecode(b"\xff.md")])
def test_a_page_shows_its_picture_whatever_it_is_called(grid, tmp_path, name):
    page = tmp_path / name
    results = [made(cell) for cell in grid.cells if cell.part == "pos"]
    write_study_report([grid], results, tmp_path / "out", page)
    (link,) = re.findall(r"!\[[^]]*\]\(([^ )]+)\)", page.read_text())
    shown = tmp_path / os.fsdecode(unquote_to_bytes(link))
    assert shown == page.with_suffix(".svg") and shown.is_file()


def test_answers_of_several_models_are_told_apart(request, tmp_path, write):
    text = (request.config.rootpath / "studies" / "intermediate.toml").read_text()
    grid = read_grid(write("two.toml", text.replace('["e5-small-4bit"]', '["small", "large"]')))
    results = [made(cell) for cell in grid.cells if cell.part == "pos"]
    results = [one | {"name": str(number)} for number, one in enumerate(results)]
    found = write_study_report([grid], results, tmp_path / "out", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    html = (tmp_path / "out" / "report.html").read_text()
    picture = answer_picture(found["contrasts"])
    for name in ("intermediate (small)", "intermediate (large)"):
        assert f"**{name}: not decided.**" in page
        assert f">{name}: difference in points" in picture and f"Numbers of {name}</a>" in html
    for model in ("small", "large"):
        title = f"Parts of speech, 5,000 sentences: udpos, {model}</a> <small>accuracy"
        assert html.count(title) == 1  # of its map
        assert html.count(f">udpos, accuracy, {model}</a>") == 1  # among the part's links


@pytest.mark.parametrize(
    "marks", ["<!-- answer -->", "<!-- end of answer --><!-- answer -->", "<!-- answer -->" * 2]
)
def test_a_page_with_half_a_place_for_the_answer_is_refused_unchanged(grid, tmp_path, marks):
    results = [made(cell) for cell in grid.cells if cell.source == "none" and cell.part == "pos"]
    page = tmp_path / "STUDY.md"
    page.write_text(f"{marks}\n<!-- tables -->\n<!-- end of tables -->\n")
    before = page.read_text()
    with pytest.raises(InputError, match="the lines <!-- answer --> and .* must stand in it, once"):
        write_study_report([grid], results, tmp_path / "out", page)
    assert page.read_text() == before and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="--into"):  # the picture would be the page
        write_study_report([grid], results, tmp_path / "out", tmp_path / "page.svg")


def test_a_study_without_both_sides_says_so(grid, tmp_path):
    results = [made(cell) for cell in grid.cells if cell.source == "none" and cell.part == "pos"]
    page = tmp_path / "STUDY.md"
    found = write_study_report([grid], results, tmp_path / "out", page)
    assert not any(map(begun, found["contrasts"]))
    assert "Nothing has been compared yet." in page.read_text()
    assert not (tmp_path / "STUDY.svg").exists()
    assert "no contrast has both of its sides yet" in (tmp_path / "out" / "report.html").read_text()
