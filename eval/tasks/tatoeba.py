"""Tatoeba: find the translation of a sentence among up to 1,000.

Source: https://github.com/facebookresearch/LASER/tree/main/data/tatoeba/v1 (CC BY 2.0 FR).
XTREME scores English to X by accuracy of the nearest neighbour; MTEB scores X to English. Its
download script copies the foreign file and sorts the English one, which hides the alignment.
"""

from __future__ import annotations

from pathlib import Path

from xtremely.eval import readers
from xtremely.eval.languages import codes, language
from xtremely.eval.task import Parallel, Setting, Task
from xtremely.kernels.guard import require

NAME = "tatoeba"
# Where LASER's file names say the individual language instead of ISO 639-3's macrolanguage.
FILE_CODES = {"zh": "cmn", "fa": "pes", "sw": "swh"}


def file_code(code: str) -> str:
    """The three-letter code in LASER's file names and the hub's configuration names."""
    return FILE_CODES.get(code, language(code).iso3)


def read(root: Path | None, code: str) -> dict[str, Parallel]:
    """The test set of a language, from LASER's files, XTREME's download folder or the hub's."""
    require(root is not None, f"task {NAME!r} needs --data-root")
    assert root is not None
    long = file_code(code)
    from_hub = readers.read_hub_pairs(root, f"tatoeba.{long}", "validation")
    if from_hub:
        x, en = from_hub
        return {"test": Parallel(x, en, list(range(len(x))), {"layout": "hub"})}
    stem = f"tatoeba.{long}-eng"
    folders = (root / NAME, root, root / "data" / NAME / "v1")
    laser = [(folder / f"{stem}.{long}", folder / f"{stem}.eng") for folder in folders]
    download = (root / NAME / f"{code}-en.{code}", root / NAME / f"{code}-en.en")
    layout, (x_file, en_file) = readers.locate(NAME, code, [*laser, download])
    x, en = readers.read_aligned(x_file, en_file)
    if layout < len(laser):
        return {"test": Parallel(x, en, list(range(len(x))), {"layout": "LASER"})}
    return {"test": Parallel(x, en, None, {"layout": "XTREME download, alignment hidden"})}


TASK = Task(
    name=NAME,
    title="translation retrieval among up to 1,000 sentences",
    kind="retrieve",
    languages=codes(
        "af ar bg bn de el es et eu fa fi fr he hi hu id it ja"
        " jv ka kk ko ml mr nl pt ru sw ta te th tl tr ur vi zh"
    ),
    read=read,
    splits=("test",),
    metric="accuracy",
    direction="en->x",
    scoring="cosine",
    profiles={
        # scripts/run_tatoeba.sh; and what pull request 104 found to match the paper's table.
        "script": Setting({12: 8, 24: 14}, "mean"),
        "paper": Setting({12: 8, 24: 10}, "mean"),
    },
    benchmark="XTREME",
    licence="CC BY 2.0 FR",
    source="https://github.com/facebookresearch/LASER (data/tatoeba/v1)",
    layouts=(
        "tatoeba/tatoeba.XXX-eng.{XXX,eng}",
        "tatoeba/LL-en.{LL,en}",
        "tatoeba.XXX/validation-*.parquet",
    ),
)
