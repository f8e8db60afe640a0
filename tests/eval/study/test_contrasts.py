"""What an intermediate phase changes, from made-up results of the shipped grid."""

import json
from dataclasses import replace

import pytest
from study_results import GAIN, made, value

from xtremely.eval.study.contrast_tables import contrast_lines
from xtremely.eval.study.contrasts import contrasts, verdict
from xtremely.eval.study.failed import names_of_failed
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.report import write_study_report
from xtremely.kernels.guard import InputError, UsageError

TRUE_LABELS = ("pos", "after", "names", "answers", "paraphrases", "answers-690")


@pytest.fixture(scope="module")
def grid(request):
    return read_grid(request.config.rootpath / "studies" / "intermediate.toml")


def analysed(grid, results):
    (found,) = contrasts([grid], results)
    return found


def contrast(found, name, runs="all runs"):
    return next(one for one in found[runs]["contrasts"] if one["name"] == name)


@pytest.fixture(scope="module")
def found(grid):
    return analysed(grid, [made(cell) for cell in grid.cells])


def test_the_primary_contrasts_on_the_average_over_tasks(found):
    zh, ar = (contrast(found, name) for name in ("zh - en", "ar - en"))
    assert zh["primary"] and ar["primary"]
    assert [one["name"] for one in found["all runs"]["contrasts"] if one["primary"]] == [
        "zh - en",
        "ar - en",
    ]
    whole = zh["averages"]["tasks"]
    assert whole["value"] == pytest.approx(4, abs=0.1) and whole["verdict"] == "larger"
    assert whole["seeds"] == 3 and whole["detectable"] < 1
    assert sorted(whole["languages"]) == ["mlqa", "panx", "pawsx", "tydiqa", "udpos", "xquad"]
    little = ar["averages"]["tasks"]
    assert little["value"] == pytest.approx(0.2, abs=0.1) and little["verdict"] == "smaller"
    both = zh["averages"]["tasks and retrieval"]
    assert set(both["languages"]) - set(whole["languages"]) == {"tatoeba", "bucc2018"}


def test_holm_covers_the_primary_contrasts_and_no_others(found):
    ps = [contrast(found, name)["averages"]["tasks"] for name in ("zh - en", "ar - en")]
    assert all(one["holm"] >= one["p"] for one in ps)
    assert {one["interval"]["level"] for one in ps} == {0.95, 0.975}
    assert contrast(found, "ru - en")["averages"]["tasks"]["holm"] is None
    assert contrast(found, "zh - en")["averages"]["recovered tasks"]["interval"]["level"] == 0.95


def test_languages_of_either_side_and_of_the_target_are_left_out(found):
    languages = contrast(found, "zh - en")["averages"]["tasks"]["languages"]
    assert languages["udpos"] == ["ar", "de", "fi", "fr", "ko", "ru", "te"]
    everywhere = contrast(found, "zh - en")["averages"]["tasks and retrieval"]["languages"]
    assert {"zh", "ar", "de"} <= {*everywhere["tatoeba"]} and everywhere["bucc2018"]
    mixed = contrast(found, "en+zh+ar - en")["averages"]["tasks"]["languages"]
    assert mixed["udpos"] == ["de", "fi", "fr", "ko", "ru", "te"]


def test_a_task_counts_once_and_in_the_first_part_that_has_it(found):
    names = contrast(found, "zh - en")["averages"]["tasks"]["tasks"]
    assert "answers: xquad" in names and "answers-690: xquad" not in names
    titles = [(one["title"], one["task"]) for one in found["all runs"]["comparisons"]]
    assert ("answers-690", "xquad") in titles and ("after", "xnli") not in titles


def test_shuffled_labels_are_an_arm_of_the_same_comparison(found):
    (pos,) = [one for one in found["all runs"]["comparisons"] if one["task"] == "udpos"]
    assert set(pos["arms"]) == {*GAIN, "en shuffled", "zh shuffled", "ar shuffled"}
    place = found["all runs"]["comparisons"].index(pos)
    assert contrast(found, "zh - zh shuffled")["each"][place]["value"] == pytest.approx(5, abs=0.2)


def test_the_order_of_parts_changes_no_comparison_of_shuffled_labels(grid, found):
    parts = sorted(grid.parts, key=lambda part: not part.name.endswith("shuffled"))
    assert parts[0].name.endswith("shuffled") and not grid.parts[0].name.endswith("shuffled")
    turned = replace(grid, parts=tuple(parts))
    again = analysed(turned, [made(cell) for cell in turned.cells])
    for name in ("zh - en", "zh - zh shuffled"):
        one, before = contrast(again, name), contrast(found, name)
        assert one["averages"]["tasks"]["tasks"] == before["averages"]["tasks"]["tasks"]
        assert one["averages"]["tasks"]["value"] == before["averages"]["tasks"]["value"]


def test_shuffled_labels_stand_beside_the_true_labels_of_the_same_phase(write):
    """Two parts differ in their intermediate task alone; the labels of the second are shuffled, in
    one more language, too. Those of a part with fewer examples have no counterpart.
    """
    part = """
        [[part]]
        name = "{}"
        sources = {}
        [[part.train]]
        task = "{}"
        split = "dev"
        examples = {}
        [[part.train]]
        task = "udpos"
        source = "en"
        examples = 20
        [[part.test]]
        task = "udpos"
    """
    two, three, dealt = '["en", "zh"]', '["de", "en", "zh"]', "20\nshuffle_labels = true"
    parts = [
        part.format("first", two, "xnli", 20),
        part.format("second", two, "pawsx", 20),
        part.format("dealt", three, "pawsx", dealt),
        part.format("few", two, "pawsx", dealt.replace("20", "9")),
    ]
    grid = read_grid(write("g.toml", 'contrasts = ["zh - en"]\n' + "".join(parts)))
    results = [
        made(cell, lambda *about: 50.0) | {"name": str(number)}
        for number, cell in enumerate(grid.cells)
    ]
    compared = analysed(grid, results)["all runs"]["comparisons"]
    assert {one["title"]: [*one["arms"]] for one in compared} == {
        "first": ["en", "zh"],
        "second": ["en", "zh", "de shuffled", "en shuffled", "zh shuffled"],
        "few": ["en shuffled", "zh shuffled"],
    }


def test_averages_of_every_source(found):
    averages = found["all runs"]["averages"]
    assert averages["zh"]["tasks"] - averages["none"]["tasks"] == pytest.approx(5, abs=0.2)
    assert averages["zh"]["tasks and retrieval"] is not None
    assert averages["zh shuffled"]["tasks"] == pytest.approx(70, abs=0.1)
    lines = [*contrast_lines([found])]
    assert any(line.startswith("| zh | 6 | 7") for line in lines), "answers-690 counts no more"
    assert any(line.startswith("| zh shuffled | 1 | 7") for line in lines)
    assert not any(line.startswith("| zh - zh shuffled | 1") for line in lines)


def test_fewer_seeds_than_a_statement_needs(grid):
    some = [made(cell) for cell in grid.cells if cell.seed < 3]
    one = contrast(analysed(grid, some), "zh - en")["averages"]["tasks"]
    assert one["value"] == pytest.approx(4, abs=0.1)
    assert one["verdict"] == "cannot tell"
    assert one["reasons"] == ["2 seeds, a statement needs 3"]
    alone = [made(cell) for cell in grid.cells if cell.seed == 1]
    one = contrast(analysed(grid, alone), "zh - en")["averages"]["tasks"]
    assert (one["interval"], one["p"], one["detectable"]) == (None, None, None)
    assert one["verdict"] == "cannot tell" and one["value"] == pytest.approx(4, abs=0.2)


def test_seeds_that_one_side_lacks_are_left_out_of_both(grid):
    some = [made(c) for c in grid.cells if (c.part, c.source, c.seed) != ("names", "zh", 2)]
    one = contrast(analysed(grid, some), "zh - en")
    tasks = [c["task"] for c in analysed(grid, some)["all runs"]["comparisons"]]
    seeds = [each["seeds"] for each in one["each"]]
    assert (seeds[tasks.index("panx")], seeds[tasks.index("udpos")]) == (2, 3)


def test_a_task_with_too_few_seeds_is_left_out_of_an_average_of_others(grid):
    some = [made(c) for c in grid.cells if (c.part, c.source, c.seed) != ("names", "zh", 2)]
    one = contrast(analysed(grid, some), "zh - en")["averages"]["tasks"]
    assert one["seeds"] == 3 and one["left out"] == ["names: panx"] and len(one["tasks"]) == 5
    assert one["verdict"] == "cannot tell" and one["reasons"] == ["not finished: names, panx"]


def test_a_task_that_is_not_finished(grid):
    some = [made(cell) for cell in grid.cells if cell.part != "paraphrases"]
    one = contrast(analysed(grid, some), "zh - en")["averages"]["tasks"]
    assert one["verdict"] == "cannot tell" and one["reasons"] == [
        "not finished: paraphrases, pawsx"
    ]
    assert len(one["languages"]) == 5


def test_a_task_that_the_grid_does_not_ask_for_is_not_unfinished(write):
    """Answers need no control for a source that is trained and tested on something else."""
    text = GRID.replace('"zh"]', '"zh", "ar"]', 1).replace('["ar"]', '["ar", "en"]')
    grid = read_grid(write("g.toml", text.replace("examples = 20", "examples = 21", 1)))
    results = [made(cell, lambda cell, task, code: 50.0) for cell in grid.cells]
    one = contrast(analysed(grid, results), "zh - en")["averages"]["tasks and retrieval"]
    assert {*one["tasks"]} == {"pos: udpos", "pos: tatoeba"} and one["left out"] == []
    ar = contrast(analysed(grid, results), "ar - en")
    assert sorted(name for each in ar["each"] for name in each["tasks"]) == [
        "more: udpos",
        "pos: tatoeba",
        "pos: udpos",
    ]


def test_nothing_finished_yet(grid):
    found = analysed(grid, [])
    one = contrast(found, "zh - en")["averages"]["tasks"]
    assert (one["value"], one["seeds"], one["verdict"]) == (None, 0, "cannot tell")
    assert "\n".join(contrast_lines([found]))


def test_no_conclusion_where_english_has_not_recovered(grid):
    def forgetful(cell, task, code):
        loss = 1.5 if (cell.part, cell.source, code) == ("names", "zh", "en") else 0.0
        return value(cell, task, code) - loss

    found = analysed(grid, [made(cell, forgetful) for cell in grid.cells])
    zh = contrast(found, "zh - en")["averages"]
    assert zh["tasks"]["verdict"] == "cannot tell"
    assert zh["tasks"]["reasons"] == ["English has not recovered in names after zh"]
    assert zh["recovered tasks"]["verdict"] == "larger"
    assert "panx" not in zh["recovered tasks"]["languages"]
    assert contrast(found, "ar - en")["averages"]["tasks"]["verdict"] == "smaller"
    (names,) = [one for one in found["all runs"]["comparisons"] if one["task"] == "panx"]
    assert names["arms"]["zh"]["recovered"] is False and names["arms"]["ru"]["recovered"] is True


def test_without_the_control_nobody_knows_whether_english_recovered(grid):
    some = [made(cell) for cell in grid.cells if (cell.part, cell.source) != ("pos", "none")]
    one = contrast(analysed(grid, some), "zh - en")["averages"]["tasks"]
    assert one["reasons"] == ["no control for English in pos"]


@pytest.mark.parametrize("scores", [[], [{"task": "udpos", "languages": {}, "metrics": {}}]])
def test_scores_that_a_result_lacks_are_not_finished(grid, scores):
    some = [made(cell) for cell in grid.cells]
    for cell, result in zip(grid.cells, some, strict=True):
        if (cell.part, cell.source) == ("pos", "zh"):
            result["scores"] = scores
    one = contrast(analysed(grid, some), "zh - en")["averages"]["tasks"]
    assert one["reasons"] == ["not finished: pos, udpos"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (2.1, 5.0, "larger"),
        (-5.0, -2.1, "larger"),
        (-1.9, 1.9, "smaller"),
        (0.5, 1.5, "smaller"),
        (1.0, 3.0, "cannot tell"),
        (-3.0, 1.0, "cannot tell"),
        (2.0, 3.0, "cannot tell"),
        (-9.0, 9.0, "cannot tell"),
    ],
)
def test_verdicts(low, high, said):
    assert verdict({"low": low, "high": high}, 2.0, []) == said
    assert verdict({"low": low, "high": high}, 2.0, ["too few"]) == "cannot tell"


# Runs that learnt nothing


def runs(grid, value):
    return [(cell, made(cell, value)) for cell in grid.cells]


def failing(cell, task, code):
    """The intermediate phase in Chinese learns nothing with the second seed."""
    failed = (cell.part, cell.source, cell.seed) == ("after", "zh", 2)
    return 40.0 if failed and task == "xnli" else value(cell, task, code)


def test_cells_that_begin_with_a_phase_that_learnt_nothing_have_failed(grid):
    names = names_of_failed(runs(grid, failing))
    assert names == {f"{part}.zh.2" for part in TRUE_LABELS}, "shuffled labels are nothing to learn"


def test_tables_stand_there_with_and_without_failed_runs(grid):
    found = analysed(grid, [result for _, result in runs(grid, failing)])
    assert len(found["failed"]) == 6
    assert contrast(found, "zh - en")["averages"]["tasks"]["seeds"] == 3
    learnt = contrast(found, "zh - en", "runs that learnt")["averages"]["tasks"]
    assert learnt["seeds"] == 2 and learnt["verdict"] == "cannot tell"
    assert contrast(found, "ar - en", "runs that learnt")["averages"]["tasks"]["seeds"] == 3
    text = "\n".join(contrast_lines([found]))
    assert "pos, zh, seed 2" in text and text.count("Primary contrasts") == 2


def test_a_phases_dev_score_tells_too(grid):
    every = runs(grid, value)
    for cell, result in every:
        if (cell.part, cell.source, cell.seed) == ("pos", "en", 1):
            result["training"][0]["dev"] = {"xnli": {"metric": "accuracy", "score": 43.0}}
    assert names_of_failed(every) == {
        f"{part}.en.1"
        for part in ("pos", "after", "names", "answers", "paraphrases", "answers-690")
    }


def test_a_target_that_learnt_nothing_is_judged_in_its_own_language(grid):
    def lost(cell, task, code):
        guessing = (cell.source, cell.seed, task, code) == ("zh", 3, "pawsx", "en")
        return 55.0 if guessing else value(cell, task, code)

    assert names_of_failed(runs(grid, lost)) == {"paraphrases.zh.3"}


# Reports and grids


def test_a_report_has_the_contrasts(grid, tmp_path):
    page = tmp_path / "STUDY.md"
    found = write_study_report([grid], [made(cell) for cell in grid.cells], tmp_path, page)
    assert json.loads((tmp_path / "report.json").read_text()) == found
    assert len(found["contrasts"]) == 1
    for path in (page, tmp_path / "tables.md", tmp_path / "report.html"):
        text = path.read_text()
        assert "zh - en" in text and "larger" in text and "smaller" in text, path
    table = next(one for one in found["tables"] if one["task"] == "udpos")
    zero_shot = table["rows"]["zh"]["mean"]["zero-shot"]["languages"]
    assert "en" not in zero_shot and "zh" not in zero_shot and "ar" in zero_shot


def test_a_table_is_as_wide_as_its_head(grid):
    lines = [*contrast_lines(contrasts([grid], [made(cell) for cell in grid.cells]))]
    widths = 0
    for line, after in zip(lines, lines[1:], strict=False):
        if line.startswith("| ") and after.startswith("|"):
            widths += 1
            assert line.count("|") == after.count("|")
    assert widths > 20


GRID = """
contrasts = ["zh - en"]
[[part]]
name = "pos"
sources = ["none", "en", "zh"]
[[part.train]]
task = "udpos"
examples = 20
[[part.test]]
task = "udpos"
[[part.test]]
task = "tatoeba"
[[part]]
name = "more"
sources = ["ar"]
[[part.train]]
task = "udpos"
examples = 20
[[part.test]]
task = "udpos"
"""


@pytest.mark.parametrize(
    ("new", "kind", "complaint"),
    [
        ('["zj - en"]', UsageError, r"g.toml:2: unknown source in contrast 'zj - en' 'zj'.*'zh'"),
        ('["zh - de"]', UsageError, r"g.toml:2: unknown source in contrast 'zh - de' 'de'"),
        ('["zh"]', InputError, r"g.toml:2: 'contrasts' is 'zh'; legal: two sources, as in"),
        ('["zh-en"]', InputError, r"g.toml:2: 'contrasts' is 'zh-en'; legal: two sources"),
        ('["zh - "]', InputError, "legal: two sources"),
        ('["zh - zh"]', InputError, "two different sources of one part"),
        ('["zh - ar"]', InputError, "two different sources of one part"),
        ('["zh - en", "zh - en"]', InputError, "each contrast once"),
        ('["zh - en", "en  -  zh"]', InputError, "each contrast once, in one direction"),
        ('"zh - en"', InputError, "'contrasts' is 'zh - en'; legal: of type list"),
        ("[1]", InputError, "a list of strings"),
        ('["zh - en"]\nsmallest_difference = 0', InputError, "is 0; legal: above 0, 100 at most"),
        ('["zh - en"]\nsmallest_difference = "2"', InputError, "is '2'; legal: of type a number"),
        ('["zh - en"]\nsmallest_difference = nan', InputError, "legal: above 0, 100 at most"),
    ],
)
def test_contrasts_that_cannot_be_used(write, new, kind, complaint):
    with pytest.raises(kind, match=complaint):
        read_grid(write("g.toml", GRID.replace('["zh - en"]', new)))


def test_a_grid_names_its_contrasts(write):
    grid = read_grid(write("g.toml", GRID + "\n"))
    assert (grid.contrasts, grid.smallest_difference) == ((("zh", "en"),), 2.0)
    without = read_grid(write("g.toml", GRID.replace('contrasts = ["zh - en"]', "")))
    assert without.contrasts == () and contrasts([without], []) == []
