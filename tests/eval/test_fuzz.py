"""Whatever is wrong with a file or an option, a command ends in 0, 1 or 2 and a plain line.

Each case starts from inputs that work, damages one file or one option, and runs the command in
this process. The quick form runs with the suite; ``pytest -m nightly tests/eval/test_fuzz.py`` runs
the long one and prints how the cases ended.
"""

import contextlib
import hashlib
import io
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hub_schemas import repository
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mutations import OPTIONS, damage_file, fresh_copy
from score_cases import CASES, put

from xtremely.eval.cli.main import main
from xtremely.eval.data.hub_record import HubFile, HubRecord, write_record
from xtremely.eval.tasks.task import find_task

QUICK, LONG = 12, 400
RECIPE = """
model = "models/tiny"
seed = 1
[[phase]]
kind = "target"
max_steps = 1
learning_rate = 1e-4
batch_size = 2
evaluate_steps = 1
[[phase.source]]
task = "udpos"
languages = ["en", "de"]
budget = 4
"""
ONE_CELL = """
name = "one"
models = ["tiny"]
[[part]]
name = "pos"
sources = ["en"]
[[part.train]]
task = "udpos"
examples = 4
epochs = 1
[[part.test]]
task = "udpos"
limit = 4
"""
ENGLISH = ["The baker opens at six.", "Our cat sleeps all day.", "The train leaves at noon."]
GERMAN = ["Der Bäcker öffnet um sechs.", "Unsere Katze schläft.", "Der Zug fährt mittags ab."]

# Command line -> the files and folders that it reads, by their names in the template folder.
COMMANDS = {
    "score predictions labels": ("predictions", "labels"),
    "tasks --data-root data": ("data",),
    "data --data-root data": ("data", "data/xcopa", "data/xcopa/hub.json"),
    "data get xcopa --to data": ("data/xcopa",),
    "eval --model models/tiny --tasks tatoeba --data-root data --limit 4 --layers 1 --out o": (
        "data/tatoeba",
        "models/tiny",
    ),
    "eval --model models/tiny --tasks mini --languages de --limit 3 --out done": ("done",),
    "compare done other --against other --save o.html --save o.csv --save o.tex": (
        *("done/results.json", "done/outcomes.json"),
    ),
    "encode --model models/tiny --input s.txt --output o.npy --layer 2": ("s.txt", "models/tiny"),
    "mine s.npy t.npy --out o.tsv --k 2 --threshold 0.5 --gold gold.tsv": (
        *("s.npy", "t.npy", "gold.tsv"),
    ),
    "mine s.txt t.txt --model models/tiny --out m.tsv --k 2 --shards 1": (
        *("s.txt", "t.txt", "m.tsv.work"),
    ),
    "index build s.npy --out o.faiss --index Flat --recall 0.9 --k 1": ("s.npy",),
    "index search i.faiss t.npy --out o.tsv --k 2": ("i.faiss", "i.faiss.json", "t.npy"),
    "train recipe.toml --data-root data --out o": ("recipe.toml", "data/udpos"),
    "study run grid.toml --data-root data --models models --out o --dry-run": (
        *("grid.toml", "data"),
    ),
    "study report one.toml --run one.json --out o": ("one.toml", "one.json"),
    "study run one.tar.xz --out o --dry-run": ("one.tar.xz",),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory, small_study, tiny_bert):
    """A folder with everything that the commands read, all of it valid."""
    root = tmp_path_factory.mktemp("fuzz") / "template"
    shutil.copytree(small_study, root)
    for name in ("xnli", "udpos", "panx", "xquad", "bucc2018", "tatoeba"):
        for code in find_task(name).languages:
            put(root / "labels", name, code, CASES[name][0])
            put(root / "predictions", name, code, CASES[name][1])
    _downloaded("xcopa", root / "data" / "xcopa")
    (root / "s.txt").write_text("".join(f"{line}\n" for line in GERMAN))
    (root / "t.txt").write_text("".join(f"{line}\n" for line in ENGLISH))
    vectors = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    np.save(root / "s.npy", vectors)
    np.save(root / "t.npy", vectors[::-1] + 0.1)
    (root / "gold.tsv").write_text("1\t6\n2\t5\n")
    (root / "recipe.toml").write_text(RECIPE)
    (root / "one.toml").write_text(ONE_CELL)
    before = [
        "index build s.npy --out i.faiss --index Flat --k 1",
        "mine s.txt t.txt --model models/tiny --out m.tsv --k 2",
        "eval --model models/tiny --tasks mini --languages de --limit 3 --out done",
        "eval --model models/tiny --tasks mini --languages de --limit 3 --layers 1 --out other",
        "study run one.toml --data-root data --models models --out s --results one.json",
        "study pack one.toml --data-root data --models models --out one.tar.xz",
    ]
    for line in before:
        code, trouble = run(line.split(), root)
        assert code == 0, trouble
    return root


def _downloaded(name: str, folder: Path) -> None:
    """A task's folder as a download leaves it."""
    source, files = find_task(name).hub, {}
    for path, content in repository(name).items():
        if path.endswith(".parquet"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            files[path] = HubFile(path, len(content), hashlib.sha256(content).hexdigest())
    write_record(folder, HubRecord(source.repository, source.revision, source.revision, files))


def run(arguments: list[str], folder: Path) -> tuple[int, str]:
    """A command's exit code and standard error; anything but an exit is raised."""
    errors = io.StringIO()
    shown = warnings.showwarning
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        try:
            main(arguments)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            warnings.showwarning = shown
    return code, errors.getvalue()


@pytest.fixture(scope="module")
def endings():
    """How the cases of all commands ended, printed at the end."""
    found = Counter()
    yield found
    for (command, code), cases in sorted(found.items()):
        sys.stderr.write(f"{command}: {cases} cases ended with exit code {code}\n")


def _try(line, template, draw, endings):
    folder = fresh_copy(template, template.parent / "deep" / "work")
    before = {path.name for path in template.parent.iterdir()}
    arguments = line.split()
    told = ""
    if draw.draw(st.integers(0, 3), label="an option?") == 0:
        values = [n for n in range(1, len(arguments)) if arguments[n - 1].startswith("--")]
        values = values or [len(arguments) - 1]
        place = draw.draw(st.sampled_from(values), label="which")
        arguments[place] = draw.draw(st.sampled_from(OPTIONS), label="value")
    else:
        places = [folder / name for name in COMMANDS[line]]
        files = [path for place in places for path in _files(place)]
        told = draw.draw(damage_file(files), label="file")
    code, trouble = run(arguments, folder)
    assert code in (0, 1, 2), (told, trouble)
    assert "Traceback" not in trouble, (told, trouble)
    if code == 1:
        assert "error:" in trouble, (told, trouble)
    assert {path.name for path in template.parent.iterdir()} == before, "wrote outside"
    endings[line.split(" --")[0], code] += 1


def _files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]


def _fuzz(line, template, endings, examples):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples == QUICK,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # shrinking a fault would take minutes
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def cases(draw):
        _try(line, template, draw, endings)

    cases()


@pytest.mark.parametrize("line", COMMANDS)
def test_no_fault_in_a_file_or_option_ends_in_a_traceback(line, template, endings):
    _fuzz(line, template, endings, QUICK)


@pytest.mark.nightly
@pytest.mark.parametrize("line", COMMANDS)
def test_no_fault_of_many_ends_in_a_traceback(line, template, endings):
    _fuzz(line, template, endings, LONG)
