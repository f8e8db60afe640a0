"""UDPOS: part-of-speech tagging on Universal Dependencies treebanks.

Source: https://universaldependencies.org: release 2.5 (XTREME-R's further languages: 2.7), all
treebanks of a language in the order of their file names. Multiword tokens count as one word (see
``conllu``). The labels are the 17 universal parts of speech; any other tag, even ``_``, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.conllu import read_treebanks
from xtremely.eval.data.examples import Tagged
from xtremely.eval.data.languages import codes, language
from xtremely.eval.data.tables import TAGS, TEXTS
from xtremely.eval.data.tagged import read_tagged, tagged_rows
from xtremely.eval.tasks.task import LabelRules, Task, sizes_of

NAME = "udpos"
LABELS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM",
    "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip
MORE_LANGUAGES = codes("lt pl ro uk wo")
HUB_NAMES = {"zh": "Chinese"}
HUB = hub.xtreme(
    lambda code: [f"udpos.{HUB_NAMES.get(code, language(code).name)}"],
    {"train": "train", "dev": "validation", "test": "test"},
    {"tokens": TEXTS, "pos_tags": TAGS},
)
SYNTACTIC_WORDS = "syntactic words, where XTREME has fused forms"
SOME_TREEBANKS = "from CoNLL-U files: XTREME's only if all treebanks of the language are there"


def find(root: Path, code: str, split: str) -> Callable[[], Tagged]:
    """A split, from XTREME's download folder, a release's treebanks or the Hugging Face copy."""
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        notes = {"layout": "hub", "not_comparable": SYNTACTIC_WORDS}
        return partial(tagged_rows, table, LABELS, **notes)
    download = root / NAME / f"{split}-{code}.tsv"
    layouts = [[download], *_treebanks(root, code, split)]
    layout, files = readers.locate(NAME, code, layouts)
    if layout == 0:
        return partial(read_tagged, files[0], LABELS, layout="XTREME")
    names = dict.fromkeys(path.name.partition("-ud-")[0] for path in files)
    notes = {
        "layout": "CoNLL-U",
        "treebanks": ", ".join(names),
        "not_comparable": SOME_TREEBANKS,
    }
    return partial(read_treebanks, files, code, LABELS, **notes)


def _treebanks(root: Path, code: str, split: str) -> list[list[Path]]:
    """The language's files in each treebank folder, sorted by name.

    Large treebanks are distributed in parts, such as ``de_hdt-ud-train-a-1.conllu``.
    """
    release = "2.7" if code in MORE_LANGUAGES else "2.5"
    plain = re.compile(rf"{code}_.*-ud-{split}(-[a-z0-9]+)*\.conllu")
    layouts = []
    for folder in (root / "udpos_conllu", root / f"ud-treebanks-v{release}", root):
        found = [(path, plain.match(path.name)) for path in folder.glob(f"UD_*/{code}_*.conllu*")]
        named = {path.with_name(match[0]) for path, match in found if match}
        layouts.append(sorted(named, key=lambda path: path.name))
    return [files for files in layouts if files]


TASK = Task(
    name=NAME,
    title="the part of speech of every word",
    kind="tag",
    languages=codes(
        "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur"
        " vi yo zh"
    ),
    find=find,
    splits=("test", "dev"),
    metric="f1",
    rules=LabelRules(LABELS),
    benchmark="XTREME",
    licence="each treebank's own, mostly CC BY-SA or CC BY-NC-SA",
    source="https://universaldependencies.org (release 2.5; XTREME-R's further languages: 2.7)",
    layouts=(
        "udpos/{test,dev,train}-LL.tsv",
        "{udpos_conllu,ud-treebanks-v2.5}/UD_*/LL_*-ud-{test,dev,train}{,-PART}.conllu",
        "{udpos/,}udpos.LANGUAGE/{test,validation,train}-*.parquet",
    ),
    hub=HUB,
    checkpoint="udpos",
    more_languages=MORE_LANGUAGES,
    more_splits=("train",),
    max_length=128,
    sizes={
        "dev": sizes_of(
            "af 194 ar 909 bg 1115 de 19233 el 403 en 3974 et 3868 fa 2055 fi 3239 fr 2905 he 484"
            " hi 1659 id 559 ja 501 ko 3016 nl 1394 pt 1770 ru 8108 te 131 zh 1000"
        ),
        "test": sizes_of(
            "af 425 ar 1680 bg 1116 el 456 en 5440 et 4127 fa 2055 fi 6544 fr 5013 he 491 hi 2684"
            " id 1931 ja 2365 kk 1047 ko 4276 nl 1471 pt 2680 ru 8973 te 146 tl 222 zh 3455"
        ),
    },
)
