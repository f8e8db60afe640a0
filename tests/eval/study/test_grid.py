"""The grid file: what it says, and what it may not say."""

import os

import pytest

from xtremely.eval.study.cells import locate_model
from xtremely.eval.study.grid import StudyPhase, Test, read_grid
from xtremely.eval.tasks.task import find_task
from xtremely.eval.training.lengths import check_lengths
from xtremely.kernels.guard import InputError, UsageError

GRID = """
name = "small"
models = ["e5-small-4bit"]
seeds = [1, 2]

[[part]]
name = "pos"
sources = ["en", "zh", "en+zh"]
[[part.train]]
task = "udpos"
examples = 20
epochs = 2
[[part.test]]
task = "udpos"
limit = 5

[[part]]
name = "nli"
sources = ["none", "ar"]
[[part.train]]
task = "xnli"
split = "dev"
examples = 10
[[part.test]]
task = "xnli"
[[part.test]]
task = "tatoeba"
layers = "all"
"""


@pytest.fixture
def grid(write):
    """Reads a grid's text."""
    return lambda text: read_grid(write("grid.toml", text))


def test_cells_come_first_seeds_first_and_in_the_order_of_the_parts(grid):
    cells = [(cell.part, cell.source, cell.seed) for cell in grid(GRID).cells]
    first = [("pos", "en"), ("pos", "zh"), ("pos", "en+zh"), ("nli", "none"), ("nli", "ar")]
    second = [("pos", "en"), ("pos", "zh"), ("pos", "en+zh"), ("nli", "ar")]
    assert cells == [(*one, 1) for one in first] + [(*one, 2) for one in second]


def test_a_source_is_the_language_of_every_phase_that_names_none(grid):
    text = GRID.replace('task = "xnli"\nsplit', 'task = "udpos"\nexamples = 9\nsource = "fi"\n'
        '[[part.train]]\ntask = "xnli"\nsplit')  # fmt: skip
    cells = {cell.source: cell for cell in grid(text).cells if cell.part == "nli"}
    finnish = StudyPhase("udpos", "train", 9, ("fi",))
    assert cells["ar"].phases == (finnish, StudyPhase("xnli", "dev", 10, ("ar",)))
    assert cells["none"].phases == (finnish,)


def test_several_languages_share_the_examples(grid):
    (cell, *_) = [cell for cell in grid(GRID).cells if cell.source == "en+zh"]
    recipe = cell.recipe("folder")
    assert recipe.phases[0].sources[0].sizes() == {"en": 10, "zh": 10}
    assert (recipe.model, recipe.seed, recipe.phases[0].epochs) == ("folder", 1, 2.0)


def test_without_training_only_vectors_are_tested(grid):
    tests = {cell.source: cell.tests for cell in grid(GRID).cells if cell.part == "nli"}
    assert tests["none"] == (Test("tatoeba", layers="all"),)
    assert tests["ar"] == (Test("xnli"), Test("tatoeba", layers="all"))


def test_a_task_can_differ_by_source(grid):
    text = GRID.replace('task = "xnli"\nsplit', 'task = {ar = "xnli"}\nsplit')
    phases = {cell.source: cell.phases for cell in grid(text).cells if cell.part == "nli"}
    assert phases["ar"][0].task == "xnli"
    with pytest.raises(InputError, match=r"grid.toml:\d+: 'task'; legal: one for source 'de'"):
        grid(text.replace('"none", "ar"', '"none", "ar", "de"'))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("seeds", "seed", r"grid.toml:4: unknown key of a grid 'seed'; did you mean 'seeds'"),
        ("sources", "source", r"grid.toml:8: unknown key of a part 'source'; did you mean 'sou"),
        ("epochs", "epoch", r"grid.toml:12: unknown key of a phase 'epoch'; did you mean 'epochs'"),
        ("limit", "limits", r"grid.toml:15: unknown key of a test 'limits'; did you mean 'limit'"),
        ('"udpos"', '"udpo"', r"grid.toml:10: unknown task 'udpo'; did you mean 'udpos'"),
        ('"en", "zh", "en', '"en", "xx", "en', r"grid.toml:8: unknown language 'xx'"),
        ('"dev"', '"devel"', r"grid.toml:22: unknown split of xnli 'devel'; did you mean 'dev'"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest_one_and_the_line(grid, old, new, complaint):
    with pytest.raises(UsageError, match=complaint):
        grid(GRID.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[1, 2]", "[1, 1]", r"grid.toml:4: 'seeds'; legal: different whole numbers"),
        ("[1, 2]", "[-1]", r"grid.toml:4: 'seeds'; legal: different whole numbers"),
        ("limit = 5", "limit = 1", r"grid.toml:15: 'limit'; legal: at least 2"),
        ("limit = 5", 'layers = "all"', r"'layers'; legal: only with retrieval, not udpos"),
        ("examples = 20", "", r"'examples' is missing"),
        ("examples = 20", 'examples = "20"', r"grid.toml:11: 'examples' is '20'; legal: of type"),
        ('"pos"', '"P/S"', r"grid.toml:7: 'name' is 'P/S'; legal: lower-case letters"),
        ("epochs = 2", "epochs = -2", r"toml:12: part 'pos': phase '1-udpos': epochs is -2.0"),
        ("epochs = 2", "batch_size = 0", r"toml:12: part 'pos': phase '1-udpos': batch_size is 0"),
        ("[1, 2]", "[]", r"grid.toml:4: 'seeds'; legal: different whole numbers"),
        ('["e5-small-4bit"]', "[]", r"grid.toml:3: 'models'; legal: at least one"),
        ('["e5-small-4bit"]', '[""]', r"grid.toml:3: 'models'; legal: at least one"),
        ('"small"', '""', r"grid.toml:2: 'name' is ''; legal: a name of files"),
        ('["en", "zh", "en+zh"]', '["en", "en"]', r"grid.toml:8: 'sources'; legal: each source"),
        ('task = "tatoeba"\nlayers = "all"', 'task = "pawsx"', "after training in 'none', nothing"),
        ("seeds = [1, 2]", "seeds = [1", r"grid.toml: not TOML"),
        ('"small"', '"../../x"', r"grid.toml:2: 'name' is '../../x'; legal: a name of files"),
        ('"small"', '"/tmp/x"', r"'name' is '/tmp/x'; legal: a name of files"),
        ('"small"', '".xtremely"', r"'name' is '.xtremely'; legal: a name of files"),
        ('"small"', '"' + "x" * 251 + '"', r"'name' is 'x+'; legal: a name of files"),
        ('"en+zh"', '"en+zh", "zh+en"', r"grid.toml:8: 'sources'; legal: each source once"),
        (
            'name = "nli"',
            'name = "nli"\ntitle = "pos"',
            r"grid.toml:19: 'title' is 'pos'; legal: another one for every part",
        ),
        ("limit = 5", "languages = []", r"grid.toml:15: 'languages'; legal: a list of strings"),
        (
            '"en", "zh", "en+zh"',
            '"en", "en+en"',
            r"grid.toml:8: 'sources' is 'en\+en'; legal: each",
        ),
        (
            "epochs = 2",
            'source = "de+fi+de"',
            r"grid.toml:12: 'source' is 'de\+fi\+de'; legal: each",
        ),
        ('["e5-small-4bit"]', '["m", "m"]', r"grid.toml:3: 'models'; legal: at least one, each"),
        ("limit = 5", 'languages = ["de", "de"]', r"grid.toml:15: 'languages'; legal: each"),
        ("[1, 2]", "[4294967296]", r"grid.toml:4: 'seeds'; legal: different whole numbers"),
        ("[1, 2]", "[[1], [2]]", r"grid.toml:4: 'seeds'; legal: different whole numbers"),
        ("seeds = [1, 2]", "x = " + "[" * 100_000, r"grid.toml: nested too deeply"),
        ("seeds = [1, 2]", "seeds = [" + "9" * 5000 + "]", r"grid.toml: a number is too long"),
        (
            '[[part.train]]\ntask = "udpos"\nexamples = 20\nepochs = 2',
            "train = [3]",
            "expected a table, got 3",
        ),
        ('layers = "all"', 'layers = "4x"', r"grid.toml:28: 'layers' is '4x'; legal: 'last'"),
    ],
)
def test_what_cannot_be_used_is_refused(grid, old, new, complaint):
    with pytest.raises(InputError, match=complaint):
        grid(GRID.replace(old, new, 1))


def test_a_grid_may_lack_any_line_that_has_a_default_and_no_other(grid):
    lines = GRID.split("\n")
    needed = []
    for number, line in enumerate(lines):
        try:
            grid("\n".join(lines[:number] + lines[number + 1 :]))
        except InputError:
            needed.append(line.partition(" = ")[0])
    assert {"name", "sources", "task", "examples", "[[part]]", "[[part.test]]"} <= {*needed}
    assert not {"models", "seeds", "epochs", "split", "limit", "layers"} & {*needed}


def test_a_grid_whose_file_has_a_name_that_is_no_text_needs_one_of_its_own(write):
    path = write(os.fsdecode(b"\xff.toml"), GRID.replace('name = "small"\n', "", 1))
    with pytest.raises(InputError, match=r"'name' is '\\udcff'; legal: a name of files"):
        read_grid(path)
    path.write_text(GRID)
    assert read_grid(path).name == "small"


def test_the_shipped_grids_can_be_read(request):
    folder = request.config.rootpath / "studies"
    names = [read_grid(path).name for path in sorted(folder.glob("*.toml"))]
    assert len(set(names)) == len(names) >= 2


def test_the_shipped_grids_fit_their_models(request):
    """Their sequences are neither longer than a model takes nor too short for a phase's tasks."""
    for path in sorted((request.config.rootpath / "studies").glob("*.toml")):
        grid = read_grid(path)
        for name in grid.models:
            base = locate_model(name, None)
            cells = [one for one in grid.cells if one.model == name and one.phases]
            tests = [find_task(task) for task in {test.task for one in cells for test in one.tests}]
            check_lengths([one.recipe(base) for one in cells], base, tests)


def test_a_part_tests_a_task_once(grid):
    """Tables have one row a run and task: two tests of one task would count as two runs."""
    twice = '[[part.test]]\ntask = "udpos"\nlanguages = ["fi"]\n\n[[part]]\nname = "nli"'
    text = GRID.replace('[[part]]\nname = "nli"', twice)
    complaint = r"'task' is 'udpos'; legal: each task in one \[\[part.test\]\] of a part"
    with pytest.raises(InputError, match=complaint):
        grid(text)
