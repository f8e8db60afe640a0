"""LAReQA: finding the sentence that answers a question, in a pool of sentences of all languages.

Part of XTREME-R. Source: https://github.com/google-research-datasets/lareqa (CC BY-SA 4.0): XQuAD's
paragraphs, divided into sentences. A candidate is a sentence followed by its whole paragraph, as in
XTREME-R's evaluate_retrieval.py. Models are trained for it on SQuAD.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.examples import Queries
from xtremely.eval.data.languages import codes
from xtremely.eval.data.sentences import from_squad
from xtremely.eval.data.xquad_r import read_xquad_r
from xtremely.eval.tasks.task import RankingRules, Setting, Task
from xtremely.eval.tasks.training.squad import TASK as SQUAD

NAME = "lareqa"
LANGUAGES = codes("ar de el en es hi ru th tr vi zh")


def find(root: Path, code: str, split: str) -> Callable[[], Queries]:
    """The questions of a language, with the candidates of all languages that have a file.

    Train and dev are SQuAD's, in English.
    """
    if split != "test":
        return partial(from_squad, SQUAD.find(root, code, split))
    folders = (root / NAME / "xquad-r", root / "xquad-r")
    layout, _ = readers.locate(NAME, code, [[folder / f"{code}.json"] for folder in folders])
    found = {one: readers.existing(folders[layout] / f"{one}.json") for one in LANGUAGES}
    there = {one: path for one, path in found.items() if path}
    return partial(_from_files, code, tuple(there), list(there.values()))


def _from_files(code: str, languages: tuple[str, ...], files: list[Path]) -> Queries:
    found = _read(languages, tuple(files), _stamps(files))[code]
    if len(languages) == len(LANGUAGES):
        return found
    smaller = f"the pool has {len(languages)} of {len(LANGUAGES)} languages"
    return replace(found, notes={**found.notes, "not_comparable": smaller})


def _stamps(files: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    return tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in files)


@lru_cache(maxsize=1)
def _read(
    languages: tuple[str, ...], files: tuple[Path, ...], stamps: tuple[tuple[int, int], ...]
) -> Mapping[str, Queries]:
    """All languages; every one of them asks for the same files, one after the other."""
    return read_xquad_r(dict(zip(languages, files, strict=True)))


def gold(path: Path) -> tuple[dict[str, list[str]], Collection[str]]:
    """Gold of a submission: XQuAD-R's files of all languages, as test-LL.json in one folder."""
    found = {one: readers.existing(path.parent / f"test-{one}.json") for one in LANGUAGES}
    there = {one: file for one, file in found.items() if file}
    code = next(one for one, file in there.items() if file == path)
    data = _from_files(code, tuple(there), list(there.values()))
    ids = data.pool.ids
    answers = {
        name: [ids[row] for row in rows]
        for name, rows in zip(data.ids, data.answers or (), strict=True)
    }
    return answers, frozenset(ids)


TASK = Task(
    name=NAME,
    title="the sentence that answers a question, among those of all languages",
    kind="rank",
    languages=LANGUAGES,
    find=find,
    splits=("test",),
    metric="mAP@20",
    rules=RankingRules(
        direction="question->answer",
        scoring="cosine",
        # scripts/run_eval_lareqa.sh takes the first token of a dual encoder's last layer.
        profiles={name: Setting({12: 12, 24: 24}, "cls") for name in ("script", "paper")},
        candidate_length=256,
        gold=gold,
    ),
    benchmark="XTREME-R",
    licence="CC BY-SA 4.0",
    source="https://github.com/google-research-datasets/lareqa (xquad-r)",
    layouts=("{lareqa/,}xquad-r/LL.json", "to train on: SQuAD's files"),
    more_splits=("train", "dev"),
    parallel=True,
    max_length=96,
    sizes={"test": 1190},
)
