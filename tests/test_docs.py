"""Every command and snippet in README and docs runs, on small data and a tiny model.

A fenced block of ``sh`` is run line by line. A block with ``<!-- not run: reason -->`` before it is
left out, and the reason stands on the page's source. ``toml`` blocks are read by their own readers.
"""

import contextlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from ranking_files import xquad_r
from score_cases import CASES, CASES_R, put

from xtremely.eval.cli.main import main
from xtremely.eval.scoring.benchmarks import XTREME_R
from xtremely.eval.study.data import examples, sampled, sets_tested
from xtremely.eval.study.grid import read_grid
from xtremely.eval.tasks.task import find_task
from xtremely.eval.training.recipe import read_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
PACKAGED = "e5-small-4bit"
RECIPE = """
model = "tiny"
[[phase]]
kind = "target"
max_steps = 1
batch_size = 2
[[phase.source]]
task = "udpos"
languages = ["en"]
budget = 4
"""
GRID = """
name = "small"
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


def blocks(page: Path, language: str) -> list[str]:
    """A page's fenced blocks of a language, without those that are marked as not run."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for mark, kind, text in found if kind == language and not mark]


def commands(page: Path) -> list[str]:
    return [line.partition(" #")[0] for text in blocks(page, "sh") for line in text.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_bert):
    """A folder with everything that the pages' commands name."""
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(tiny_bert, root / "tiny")
    data = root / "data"
    for folder in ("udpos", "tatoeba", "bucc2018"):
        (data / folder).mkdir(parents=True)
    for code, words in {"en": "the cat sees a dog", "zh": "猫 看 见 狗 吗"}.items():
        for split, count in (("train", 200), ("dev", 4), ("test", 4)):
            tags = ("DET", "NOUN", "VERB", "DET", "NOUN")
            sentence = "".join(f"{w}\t{t}\n" for w, t in zip(words.split(), tags, strict=True))
            (data / "udpos" / f"{split}-{code}.tsv").write_text((sentence + "\n") * count)
    numbers = {
        "en": ["one apple", "two birds", "three cats", "four dogs", "five hens", "six pigs"],
        "de": [
            "ein Apfel",
            "zwei Vögel",
            "drei Katzen",
            "vier Hunde",
            "fünf Hennen",
            "sechs Ferkel",
        ],
        "zh": ["一 个", "两 只", "三 只", "四 只", "五 只", "六 头"],
    }
    for code, name in (("de", "deu"), ("zh", "cmn")):
        for side, own in ((code, name), ("en", "eng")):
            path = data / "tatoeba" / f"tatoeba.{name}-eng.{own}"
            path.write_text("".join(f"{line}\n" for line in numbers[side]))
    for code in ("de", "en"):
        lines = [f"{code}-{n}\t{line}\n" for n, line in enumerate(numbers[code])]
        for path in (data / "bucc2018" / f"de-en.dev.{code}", root / f"{code}.tsv"):
            path.write_text("".join(lines))
        (root / f"{code}.txt").write_text("".join(f"{line}\n" for line in numbers[code]))
    gold = "".join(f"de-{n}\ten-{n}\n" for n in range(4))
    for path in (data / "bucc2018" / "de-en.dev.gold", root / "gold.tsv"):
        path.write_text(gold)
    shutil.copy(root / "en.txt", root / "sentences.txt")
    shutil.copy(root / "de.txt", root / "queries.txt")
    vectors = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    np.save(root / "x.npy", vectors)
    np.save(root / "y.npy", vectors + 0.1)
    (root / "recipe.toml").write_text(RECIPE)
    (root / "grid.toml").write_text(GRID)
    (data / "xquad-r").mkdir()
    for code in ("de", "zh"):
        (data / "xquad-r" / f"{code}.json").write_text(xquad_r(code), encoding="utf-8")
    for name, (gold, guess, _) in {**CASES, **CASES_R}.items():
        for code in XTREME_R.languages(find_task(name)):
            put(root / "labels", name, code, gold)
            put(root / "predictions", name, code, guess)
    return root


def adapted(line: str) -> list[str]:
    """A page's command with the tiny model in the packaged one's place."""
    words = shlex.split(line)
    words = ["tiny" if word == PACKAGED else word for word in words]
    if words[1] in ("eval", "encode", "mine", "index", "train") and "--model" not in words:
        words += ["--model", "tiny"] if words[1:2] != ["index"] or words[2] != "info" else []
    if words[1] == "train" and "recipe.toml" in words:
        words = words[: words.index("--model")]
    if "--profile" in words:  # published for models of 12 or 24 layers
        words += ["--layers", "2"]
    if words[1] == "eval" and "all" in words and "--layers" not in words:
        raise AssertionError(f"{line}: names all tasks, which small data do not have")
    return words[1:]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda p: p.name)
def test_the_commands_of_a_page_run(page, place, tmp_path, capsys):
    folder = tmp_path / "here"
    shutil.copytree(place, folder)
    for kept in (examples, sampled, sets_tested):  # by path, and "data" is another folder here
        kept.cache_clear()
    for line in commands(page):
        assert line.startswith("xtremely "), f"{page.name}: {line!r} is run by nobody; mark it"
        with contextlib.chdir(folder):
            try:
                main(adapted(line))
            except SystemExit as stop:
                assert not stop.code, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda p: p.name
)
def test_the_snippets_of_a_page_run(page, place, tmp_path, e5):
    with contextlib.chdir(tmp_path):
        if page.name == "onnx.md":
            for out, options in (("onnx-model", []), ("onnx-packed", ["--packed"])):
                with contextlib.suppress(SystemExit):
                    main(["export", str(place / "tiny"), "--out", out, *options])
        for text in blocks(page, "python"):
            exec(compile(text, page.name, "exec"), {})


def test_the_recipe_and_the_grid_of_the_pages_are_legal(tmp_path):
    for page, read in (("train.md", read_recipe), ("study.md", read_grid)):
        (text,) = blocks(ROOT / "docs" / page, "toml")
        (tmp_path / page).with_suffix(".toml").write_text(text)
        read((tmp_path / page).with_suffix(".toml"))


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_shows_what_its_first_command_prints(tmp_path, capsys, monkeypatch, e5):
    monkeypatch.setenv("COLUMNS", "100")
    first = commands(ROOT / "README.md")[0]
    with contextlib.chdir(tmp_path), contextlib.suppress(SystemExit):
        main(shlex.split(first)[1:])
    printed = capsys.readouterr().out
    (shown,) = blocks(ROOT / "README.md", "text")
    rows = [line.split() for line in shown.splitlines()]
    by_setting = {tuple(line.split()[:-2]): line.split()[-2:] for line in printed.splitlines()}
    for *setting, score, languages in rows:
        found, count = by_setting[tuple(setting)]
        assert count == languages
        # A processor's own rounding may move one of 1,560 sentences.
        assert score == found or abs(float(score) - float(found)) < 0.2
