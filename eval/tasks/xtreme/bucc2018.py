"""BUCC 2018: bitext mining, finding the translation pairs in two monolingual corpora.

Source: https://comparable.limsi.fr/bucc2018. XTREME calls the release's sample-gold part "dev"
and its training-gold part "test" (gold removed). The threshold is tuned on dev, then fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Comparable, Side
from xtremely.eval.data.languages import language
from xtremely.eval.data.tables import Table
from xtremely.eval.tasks.task import MiningRules, Setting, Task, sizes_of
from xtremely.kernels.guard import require

NAME = "bucc2018"
RELEASE_NAMES = {"dev": "sample", "test": "training"}
HUB = hub.xtreme(
    lambda code: [f"bucc18.{code}"], {"dev": "validation", "test": "test"}, hub.TRANSLATIONS
)


def find(root: Path, code: str, split: str) -> Callable[[], Comparable]:
    """A split, from XTREME's download folder, BUCC's release or the Hugging Face copy."""
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(_from_hub, table, code)
    release = f"{code}-en.{RELEASE_NAMES[split]}"
    stems = [
        root / NAME / f"{code}-en.{split}",
        root / NAME / f"{code}-en" / release,
        root / NAME / release,
        root / f"{code}-en.{split}",
    ]
    layouts = [[stem.with_name(f"{stem.name}.{side}") for side in (code, "en")] for stem in stems]
    layout, (x_file, en_file) = readers.locate(NAME, code, layouts)
    gold = stems[layout].with_name(f"{stems[layout].name}.gold")
    gold_file = readers.existing(gold)
    if split == "dev" and gold_file is None:  # the threshold is tuned on it
        raise readers.Incomplete(NAME, code, x_file, gold)
    return partial(_from_files, code, x_file, en_file, gold_file)


def _from_files(code: str, x_file: Path, en_file: Path, gold_file: Path | None) -> Comparable:
    x, en = Side(*readers.read_identified(x_file)), Side(*readers.read_identified(en_file))
    for path, side, own, other in ((x_file, x, code, "en"), (en_file, en, "en", code)):
        require(
            not all(name.startswith(f"{other}-") for name in side.ids),
            f"{path}:1: id {side.ids[0]!r} is of the other side, and so are all; ids of this file"
            f" begin with '{own}-'",
        )
    readers.check_sides(x.texts, en.texts, f"{x_file} and {en_file}")
    gold = readers.read_id_pairs(gold_file, x.ids, en.ids) if gold_file else None
    return Comparable(x, en, gold, {"layout": "BUCC files"})


def _from_hub(table: Table, code: str) -> Comparable:
    """The Hugging Face copy. It has only gold pairs, so its scores do not compare with XTREME's."""
    foreign, english = hub.translations(table, {code, language(code).iso3})
    readers.check_sides(foreign, english, table.name)
    x_ids = [f"{code}-{n:09d}" for n in range(1, len(foreign) + 1)]
    en_ids = [f"en-{n:09d}" for n in range(1, len(english) + 1)]
    return Comparable(
        Side(x_ids, foreign),
        Side(en_ids, english),
        set(zip(x_ids, en_ids, strict=True)),
        {"layout": "hub", "not_comparable": "gold pairs without distractors: not XTREME's task"},
    )


TASK = Task(
    name=NAME,
    title="bitext mining in comparable corpora",
    kind="mine",
    languages=("de", "fr", "ru", "zh"),
    find=find,
    splits=("dev", "test"),
    metric="f1",
    rules=MiningRules(
        direction="both",
        scoring="ratio",
        profiles={
            # scripts/run_bucc2018.sh (no --num_layers, so a 24-layer model gives layer 20); the
            # paper used mean pooling (pull request 104).
            "script": Setting({12: 8, 24: 20}, "cls"),
            "paper": Setting({12: 8, 24: 20}, "mean"),
        },
        candidates=4,
    ),
    benchmark="XTREME",
    licence="not stated by the source",
    source="https://comparable.limsi.fr/bucc2018",
    layouts=(
        "bucc2018/LL-en.{dev,test}.{LL,en,gold}",
        "bucc2018/LL-en/LL-en.{sample,training}.{LL,en,gold}",
        "{bucc2018/,}bucc18.LL/{validation,test}-*.parquet",
    ),
    hub=HUB,
    sizes={"dev": sizes_of("zh 8624")},  # sentences of the foreign side
)
