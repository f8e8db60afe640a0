"""Tatoeba: translation retrieval, finding a sentence's translation among up to 1,000.

Source: https://github.com/facebookresearch/LASER/tree/main/data/tatoeba/v1 (CC BY 2.0 FR).
XTREME scores English to X by accuracy of the nearest neighbour; MTEB scores X to English. Its
download script copies the foreign file and sorts the English one, which hides the alignment.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Parallel
from xtremely.eval.data.languages import codes, language
from xtremely.eval.data.tables import Table
from xtremely.eval.tasks.task import RetrievalRules, Setting, Task, sizes_of

NAME = "tatoeba"
LANGUAGES = codes(
    "af ar bg bn de el es et eu fa fi fr he hi hu id it ja"
    " jv ka kk ko ml mr nl pt ru sw ta te th tl tr ur vi zh"
)
# LASER's file names have the individual language here, not ISO 639-3's macrolanguage.
FILE_CODES = {"zh": "cmn", "fa": "pes", "sw": "swh"}


def file_code(code: str) -> str:
    """The three-letter code in LASER's file names and Hugging Face's configuration names."""
    return FILE_CODES.get(code, language(code).iso3)


HUB = hub.xtreme(
    lambda code: [f"tatoeba.{file_code(code)}"], {"test": "validation"}, hub.TRANSLATIONS
)


def find(root: Path, code: str, split: str) -> Callable[[], Parallel]:
    """The test set (the only split), from LASER's files, XTREME's folder or Hugging Face."""
    long = file_code(code)
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(_from_hub, table, {code, long, language(code).iso3})
    stem = f"tatoeba.{long}-eng"
    folders = (root / NAME, root, root / "data" / NAME / "v1")
    laser = [(folder / f"{stem}.{long}", folder / f"{stem}.eng") for folder in folders]
    download = (root / NAME / f"{code}-en.{code}", root / NAME / f"{code}-en.en")
    layout, (x_file, en_file) = readers.locate(NAME, code, [*laser, download])
    return partial(_from_files, x_file, en_file, aligned=layout < len(laser))


def _from_hub(table: Table, names: set[str]) -> Parallel:
    x, en = hub.translations(table, names)
    readers.check_sides(x, en, table.name)
    return Parallel(x, en, list(range(len(x))), {"layout": "hub"})


def _from_files(x_file: Path, en_file: Path, aligned: bool) -> Parallel:
    x, en = readers.read_aligned(x_file, en_file)
    if aligned:
        return Parallel(x, en, list(range(len(x))), {"layout": "LASER"})
    return Parallel(x, en, None, {"layout": "XTREME download, alignment hidden"})


TASK = Task(
    name=NAME,
    title="translation retrieval among up to 1,000 sentences",
    kind="retrieve",
    languages=LANGUAGES,
    find=find,
    splits=("test",),
    metric="accuracy",
    rules=RetrievalRules(
        direction="en->x",
        scoring="cosine",
        profiles={
            # scripts/run_tatoeba.sh, and the setting that pull request 104 found to give the
            # paper's table.
            "script": Setting({12: 8, 24: 14}, "mean"),
            "paper": Setting({12: 8, 24: 10}, "mean"),
        },
    ),
    benchmark="XTREME",
    licence="CC BY 2.0 FR",
    source="https://github.com/facebookresearch/LASER (data/tatoeba/v1)",
    layouts=(
        "tatoeba/tatoeba.XXX-eng.{XXX,eng}",
        "tatoeba/LL-en.{LL,en}",
        "{tatoeba/,}tatoeba.XXX/validation-*.parquet",
    ),
    hub=HUB,
    more_languages=codes("az lt pl ro uk"),
    sizes={
        "test": dict.fromkeys(LANGUAGES, 1000)
        | sizes_of("jv 205 ka 746 kk 575 ml 687 sw 390 ta 307 te 234 th 548")
    },
)
