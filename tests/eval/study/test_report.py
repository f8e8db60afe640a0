"""Reports on committed results: whose files they overwrite, and results that contradict others."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from study_results import made

from xtremely.eval.study.cells import cell_name, collected
from xtremely.eval.study.contrasts import contrasts
from xtremely.eval.study.failed import has_learnt
from xtremely.eval.study.figures import maps
from xtremely.eval.study.findings import findings
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.report import write_study_report
from xtremely.files.folders import MARKER
from xtremely.kernels.guard import InputError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def study():
    """A grid, and the results of two of its sources."""
    grid = read_grid(ROOT / "studies" / "ner.toml")
    every = collected(ROOT / "results" / "study" / "ner.json")
    return grid, [one for one in every if one["identity"]["source"] in ("en", "zh")]


def test_a_report_overwrites_its_own_files_only(study, tmp_path):
    grid, results = study
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("mine")
    with pytest.raises(InputError, match="mine is not empty and was not made by"):
        write_study_report([grid], results, tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"report.html"}
    assert (tmp_path / "mine" / "report.html").read_text() == "mine"
    out = tmp_path / "out"
    write_study_report([grid], results, out)
    (out / MARKER).unlink()  # as earlier versions left it
    (out / "notes.txt").write_text("mine")
    write_study_report([grid], results[:2], out)
    assert (out / "notes.txt").read_text() == "mine"
    for name, text in (("report.json", "{}"), ("report.html", "mine"), ("tables.md", "mine")):
        (out / MARKER).unlink()
        kept = (out / name).read_text()
        (out / name).write_text(text)
        with pytest.raises(InputError, match="out is not empty and was not made by"):
            write_study_report([grid], results, out)
        (out / name).write_text(kept)
        write_study_report([grid], results, out)


def test_two_results_of_one_cell_are_told_apart(study, tmp_path):
    grid, results = study
    other = json.loads(json.dumps(results[0]))
    other["identity"]["model_hash"] = "0"
    other["name"] = cell_name(other["identity"])
    with pytest.warns(UserWarning, match=f"{results[0]['name']} and {other['name']} are one cell"):
        found = write_study_report([grid], [*results, other], tmp_path)
    assert results[0]["name"] in found["cells"] and other["name"] not in found["cells"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_study_report([grid], [*results, results[0]], tmp_path)


def changed(result, points=0.0, **identity):
    """A copy of a result with another identity, and other scores."""
    other = json.loads(json.dumps(result))
    other["identity"] |= identity
    other["name"] = cell_name(other["identity"])
    for score in other["scores"]:
        for layers in score["metrics"].values():
            for values in layers.values():
                values |= {code: value + points for code, value in values.items()}
    return other


def test_tables_and_contrasts_take_the_same_result_of_a_cell():
    """A file of results holds the current cells first, and those of earlier data after them."""
    grid = read_grid(ROOT / "studies" / "intermediate.toml")
    now = [changed(made(cell), data_hash={"train": [], "test": []}) for cell in grid.cells]
    before = [changed(one, points=-20, data_hash={"train": [], "test": ["0"]}) for one in now]
    (alone,), (both,) = contrasts([grid], now), contrasts([grid], [*now, *before])
    assert both == alone
    assert findings([grid], [*now, *before])["overview"] == findings([grid], now)["overview"]


@pytest.mark.parametrize("what", ["model", "training data", "test data"])
def test_cells_of_another_model_or_of_other_data_are_not_compared(study, tmp_path, what):
    grid, results = study
    about = results[-1]["identity"]
    other = {
        "model": {"model_hash": "0"},
        "training data": {"data_hash": {**about["data_hash"], "train": ["0"]}},
        "test data": {"data_hash": {**about["data_hash"], "test": ["0"]}},
    }[what]
    named = {
        "model": "model 'e5-small-4bit'",
        "training data": "the train split of panx in 'zh'",
        "test data": "the test set of panx",
    }[what]
    assert about["source"] == "zh" and about["train"][0]["task"] == "panx"
    mixed = [*results[:-1], changed(results[-1], **other)]
    with pytest.raises(InputError, match=f"{named}.* has other content in .* be compared"):
        write_study_report([grid], mixed, tmp_path / "out")


def test_a_report_says_that_cells_were_trained_in_several_precisions(study, tmp_path):
    """Where ``auto`` takes another precision, a cell has the same name."""
    grid, results = study
    note = f"Cells by the precision of their training: bf16: 1, not recorded: {len(results) - 1}"
    for count, noted in ((0, False), (1, True)):
        some = json.loads(json.dumps(results))
        for phase in (phase for one in some[:count] for phase in one["training"]):
            phase["precision"] = "bf16"
        write_study_report([grid], some, tmp_path)
        for name in ("tables.md", "report.html"):
            assert (note in (tmp_path / name).read_text()) is noted


def test_a_grid_is_reported_on_once(study, tmp_path):
    grid, results = study
    with pytest.raises(InputError, match="two grids are called ner; name each grid once"):
        write_study_report([grid, grid], results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_of_two_grids_that_have_one_name_are_told_apart(study):
    grid, results = study
    found = findings([grid, replace(grid, name="again")], results)
    tasks = found["overview"]["tasks"]
    assert tasks == ["e5-small-4bit, ner, ner: panx", "e5-small-4bit, again, ner: panx"]
    assert [number for number, _ in maps(found["tables"])] == [1, 2]
    titles = [table["title"] for table in found["tables"]]
    assert titles == ["Names (ner)", "Names (again)"]


def test_the_overview_does_not_mix_intermediate_and_target_training(study, request):
    """ "en" is the language of the target's data in one study, of the intermediate phase's in the
    other.
    """
    path = request.config.rootpath / "studies" / "intermediate.toml"
    between = read_grid(path)
    more = [made(cell) for cell in between.cells if cell.part == "names"]
    tasks = findings([between, study[0]], [*study[1], *more])["overview"]["tasks"]
    assert tasks == ["e5-small-4bit, ner: panx"]
    assert findings([between], more)["overview"]["tasks"] == ["e5-small-4bit, names: panx"]


@pytest.fixture
def pos(write):
    """The table of parts of speech after a phase of NLI in the source's language.

    Its arguments are a line of the target phase, which may name a language of its own, and the
    sources.
    """

    def pos(line, *sources):
        text = f"""
            [[part]]
            name = "pos"
            sources = {json.dumps(sources)}
            [[part.train]]
            task = "xnli"
            split = "dev"
            examples = 9
            [[part.train]]
            task = "udpos"
            examples = 9
            {line}
            [[part.test]]
            task = "udpos"
        """
        grid = read_grid(write("grid.toml", text))
        (table,) = findings([grid], [made(cell) for cell in grid.cells])["tables"]
        return table

    return pos


def test_published_scores_are_compared_only_without_an_intermediate_phase(pos):
    """De Vries et al.'s "zh" was trained on Chinese parts of speech."""
    found = pos('source = "en"', "none", "en", "zh")
    assert found["metric"] == "accuracy" and "published" not in found


def test_no_pair_of_languages_has_one_that_was_trained_on(pos):
    found = pos('source = "en"', "en", "zh")["pairs"]["family"]["Sino-Tibetan"]
    assert found["Indo-European"]["languages"] == ["de", "fr", "ru"]
    assert found["Indo-European"]["value"] == pytest.approx(75, abs=0.2)  # 90 in English


def test_where_all_phases_are_in_the_sources_language_no_other_is_left_out(pos):
    rows = pos("", "en", "zh")["rows"]
    both = {"en", "zh"}
    assert both & {*rows["en"]["mean"]["zero-shot"]["languages"]} == {"zh"}
    assert both & {*rows["zh"]["mean"]["zero-shot"]["languages"]} == {"en"}
    assert rows["zh"]["against in-language"]["value"] == pytest.approx(0, abs=0.2)


def test_scores_that_a_result_lacks(study):
    """Whoever made it, it has the form of a result: nothing is reported where nothing is."""
    grid, results = study
    bare = json.loads(json.dumps(results))
    for one in bare:
        one["scores"] = [{"task": "panx", "languages": {}, "metrics": {}}]
    found = findings([grid], bare)
    assert found["tables"] == [] and len(found["cells"]) == len(bare)
    one = {"scores": [{"task": "xnli", "languages": {"en": {}}, "metrics": {}}]}
    assert has_learnt(grid.cells[0], one)
