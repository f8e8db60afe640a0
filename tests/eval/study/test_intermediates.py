"""Named intermediate phases: what a grid says of them, and a run of phases with several tasks."""

import pytest
from study_results import made

from xtremely.eval.study.cells import plan
from xtremely.eval.study.data import barred, data_hashes
from xtremely.eval.study.findings import findings
from xtremely.eval.study.grid import StudyPhase, Test, read_grid
from xtremely.eval.study.phases import shared_phases
from xtremely.eval.study.run import StudySettings, run_study
from xtremely.kernels.guard import InputError, UsageError

GRID = """
name = "tasks"
models = ["tiny"]
seeds = [1]
contrasts = ["joint - none"]

[[intermediate]]
name = "nli-de"
[[intermediate.train]]
task = "xnli"
split = "dev"
source = "de"
examples = 6
epochs = 1
batch_size = 4

[[intermediate]]
name = "joint"
[[intermediate.train]]
task = "xnli"
split = "dev"
source = "en"
examples = 6
epochs = 1
batch_size = 4
also = [{ task = "udpos", source = "zh", examples = 8 }]

[[intermediate]]
name = "chain"
[[intermediate.train]]
task = "xnli"
split = "dev"
source = "de"
examples = 6
epochs = 1
batch_size = 4
[[intermediate.train]]
task = "udpos"
source = "de+zh"
examples = 8
epochs = 1
batch_size = 4

[[part]]
name = "pos"
sources = ["none", "nli-de", "joint", "chain"]
[[part.train]]
task = "udpos"
source = "en"
examples = 8
epochs = 1
batch_size = 4
[[part.test]]
task = "udpos"
limit = 4

[[part]]
name = "after"
sources = ["none", "nli-de", "joint"]
[[part.test]]
task = "xnli"
[[part.test]]
task = "tatoeba"
languages = ["de"]
"""


@pytest.fixture
def grid(write):
    return lambda text=GRID: read_grid(write("g.toml", text))


def cell(grid, part, source):
    return next(one for one in grid.cells if (one.part, one.source) == (part, source))


def test_named_phases_come_before_the_parts_own(grid):
    found = grid()
    (udpos,) = cell(found, "pos", "none").phases
    assert cell(found, "pos", "nli-de").phases[1:] == (udpos,)
    nli, tags, last = cell(found, "pos", "chain").phases
    assert (nli.task, tags.languages, last) == ("xnli", ("de", "zh"), udpos)
    assert cell(found, "pos", "chain").before == (nli, tags)
    assert cell(found, "after", "none").phases == ()
    after = cell(found, "after", "joint")
    assert after.target is None and [test.task for test in after.tests] == ["xnli", "tatoeba"]
    kinds = [phase.kind for phase in cell(found, "pos", "chain").recipe("m").phases]
    assert kinds == ["intermediate", "intermediate", "target"]


def test_several_tasks_in_one_phase(grid):
    joint = cell(grid(), "after", "joint")
    (phase,) = joint.phases
    assert phase.also == (StudyPhase("udpos", "train", 8, ("zh",)),)
    (trained,) = joint.recipe("m").phases
    assert [(one.task, one.split, one.budget) for one in trained.sources] == [
        ("xnli", "dev", 6),
        ("udpos", "train", 8),
    ]
    assert joint.declaration["train"][0]["also"][0]["task"] == "udpos"
    alone = cell(grid(), "after", "nli-de")
    assert "also" not in alone.declaration["train"][0]


def test_all_tasks_of_a_phase_count_as_trained_on(grid, small_study):
    joint = cell(grid(), "after", "joint")
    assert barred(Test("udpos"), joint.phases) == ("train",)
    assert len(data_hashes(joint, small_study / "data")["train"]) == 2
    text = GRID.replace('source = "zh", examples = 8', 'source = "zh", examples = 80')
    with pytest.raises(UsageError, match="udpos has 12 train examples in 'zh', 80 are asked for"):
        plan(grid(text), small_study / "data", small_study / "models")


def test_a_named_phases_languages_are_not_zero_shot_in_tables(grid):
    """As in the contrasts: languages that some phase was trained on are left out."""
    small = grid()
    found = findings([small], [made(one, lambda *about: 50.0) for one in small.cells])
    table = next(one for one in found["tables"] if one["task"] == "udpos")
    away = {source: row["mean"]["zero-shot"]["languages"] for source, row in table["rows"].items()}
    every = {"ar", "de", "en", "fi", "fr", "ko", "ru", "te", "zh"}
    assert {*away["none"]} == every - {"en"}
    assert {*away["nli-de"]} == every - {"en", "de"}
    assert {*away["joint"]} == every - {"en", "zh"}
    assert {*away["chain"]} == every - {"en", "de", "zh"}
    assert {*table["rows"]["none"]["mean"]["shared"]["languages"]} == every - {"en", "de", "zh"}
    less = table["rows"]["nli-de"]["against"]["none"]["all"]
    assert {*less["languages"]} == every - {"en", "de"}


def test_it_runs_and_shares_what_begins_alike(grid, small_study, tmp_path):
    found = grid()
    cells = plan(found, small_study / "data", small_study / "models")
    keys = {(one.cell.part, one.cell.source): shared_phases(one) for one in cells}
    assert [len(keys["pos", name]) for name in ("none", "nli-de", "joint", "chain")] == [0, 1, 1, 2]
    assert keys["pos", "chain"][0].key == keys["pos", "nli-de"][0].key
    assert keys["pos", "joint"][0].key == keys["after", "joint"][0].key
    where = StudySettings(
        small_study / "data", tmp_path / "out", small_study / "models", device="cpu"
    )
    results = run_study(found, where, lambda text: None)
    reused = {
        (one["identity"]["source"], len(one["training"])): [p["reused"] for p in one["training"]]
        for one in results
    }
    assert reused["chain", 3] == [True, False, False]
    assert reused["joint", 2] == [False, False] and reused["joint", 1] == [True]
    assert not (tmp_path / "out" / "phases").exists()
    assert run_study(found, where, lambda text: None) == results


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "joint"', 'name = "Joint"', "'name' is 'Joint'; legal: lower-case letters"),
        ('name = "joint"', 'name = "de"', "'name' is 'de'; legal: .* not a language's code"),
        ('name = "joint"', 'name = "nli-de"', "'name' is 'nli-de'; legal: .* once"),
        ('name = "joint"', 'nome = "joint"', "unknown key of an intermediate 'nome'"),
        ('"joint", "chain"', '"joynt", "chain"', "unknown language 'joynt'"),
        ('source = "en"\nexamples = 8', "examples = 8", "after training in 'none', nothing does"),
        (
            'source = "de"\n',
            "",
            "'source'; legal: a language in every phase with or after 'nli-de'",
        ),
        ("also = [{ task", "also = [{ tusk", "unknown key of a phase 'tusk'"),
        ("examples = 8 }]", "examples = 8, epochs = 2 }]", "unknown key of a phase 'epochs'"),
        ('also = [{ task = "udpos"', 'also = [{ task = "udpo"', "unknown task 'udpo'"),
        ("also = [{", 'also = ["x", {', "expected a table, got 'x'"),
        ("contrasts = [", 'contrasts = ["nli - none", ', "unknown source in contrast 'nli - none'"),
    ],
)
def test_what_cannot_be_used_is_refused(grid, old, new, complaint):
    with pytest.raises(InputError, match=complaint):
        grid(GRID.replace(old, new, 1))


def test_phases_after_a_named_one_need_a_language(grid):
    text = GRID.replace('"none", "nli-de", "joint", "chain"', '"nli-de"').replace(
        'source = "en"\nexamples = 8', "examples = 8"
    )
    with pytest.raises(InputError, match="'source'; legal: a language .* with or after 'nli-de'"):
        grid(text.replace('contrasts = ["joint - none"]', ""))


def test_an_intermediate_without_phases(grid):
    text = GRID.replace("[[part]]", '[[intermediate]]\nname = "x"\ntrain = []\n[[part]]', 1)
    with pytest.raises(InputError, match="at least one .*intermediate.train"):
        grid(text)
