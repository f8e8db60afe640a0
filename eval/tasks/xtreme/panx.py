"""PAN-X: named entity recognition in Wikipedia sentences (WikiANN): people, organisations, places.

Source: https://github.com/afshinrahimi/mmner, the balanced splits of WikiANN. XTREME's download
script removes the tags from the test set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Tagged
from xtremely.eval.data.languages import codes
from xtremely.eval.data.tables import TAGS, TEXTS, Table
from xtremely.eval.data.tagged import check_words, read_tagged, tagged_rows
from xtremely.eval.tasks.task import LabelRules, Task, sizes_of

NAME = "panx"
LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
HUB = hub.xtreme(
    lambda code: [f"PAN-X.{code}"],
    {"train": "train", "dev": "validation", "test": "test"},
    {"tokens": TEXTS, "ner_tags": TAGS},
)


def find(root: Path, code: str, split: str) -> Callable[[], Tagged]:
    """A split, from WikiANN's files (all tagged), XTREME's download folder or Hugging Face."""
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(_from_hub, table)
    wikiann = [root / folder / code / split for folder in (f"{NAME}/original", "panx_dataset")]
    download = root / NAME / f"{split}-{code}.tsv"
    layout, (path,) = readers.locate(NAME, code, [[file] for file in (*wikiann, download)])
    if layout < len(wikiann):
        return partial(read_tagged, path, LABELS, f"{code}:", layout="WikiANN")
    return partial(_from_download, path)


def _from_hub(table: Table) -> Tagged:
    return check_words(tagged_rows(table, LABELS, layout="hub"), table.name)


def _from_download(path: Path) -> Tagged:
    return check_words(read_tagged(path, LABELS, layout="XTREME"), path)


TASK = Task(
    name=NAME,
    title="names of people, organisations and places",
    kind="tag",
    languages=codes(
        "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv"
        " ka kk ko ml mr ms my nl pt ru sw ta te th tl tr ur vi yo zh"
    ),
    find=find,
    splits=("test", "dev"),
    metric="f1",
    rules=LabelRules(LABELS),
    benchmark="XTREME",
    licence="not stated by the source",
    source="https://github.com/afshinrahimi/mmner (XTREME: panx_dataset of AmazonPhotos.zip)",
    layouts=(
        "panx/original/LL/{test,dev,train}",
        "panx_dataset/LL/{test,dev,train}",
        "panx/{test,dev,train}-LL.tsv",
        "{panx/,}PAN-X.LL/{test,validation,train}-*.parquet",
    ),
    hub=HUB,
    checkpoint="panx",
    more_languages=codes("az gu lt pa pl qu ro uk"),
    more_splits=("train",),
    max_length=128,
    sizes={
        "dev": sizes_of(
            "af 1000 ar 10000 bg 10000 bn 1000 de 10000 el 10000 en 10000 et 10000 fa 10000"
            " fi 10000 fr 10000 he 10000 hi 1000 id 10000 jv 100 ka 10000 kk 1000 ko 10000"
            " ml 1000 mr 1000 ms 1000 my 100 ru 10000 sw 1000 te 1000 tl 1000 yo 100 zh 10000"
        ),
        "test": sizes_of(
            "af 1000 ar 10000 bg 10000 bn 1000 de 10000 el 10000 en 10000 et 10000 fa 10000"
            " fi 10000 fr 10000 he 10000 hi 1000 id 10000 jv 100 ka 10000 kk 1000 ko 10000"
            " ml 1000 mr 1000 ms 1000 my 100 ru 10000 sw 1000 te 1000 th 10000 tl 1000 yo 100"
            " zh 10000"
        ),
    },
)
