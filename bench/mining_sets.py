"""Make test sets for bitext mining: gold pairs among sentences that have no translation.

    python -m xtremely.bench.mining_sets --data-root data --out sets --languages de,fr,zh,ru,ar

Writes ``LL-en.LL``, ``LL-en.en`` (id TAB sentence) and ``LL-en.gold`` (id TAB id) in BUCC's format.
The sources are XNLI, PAWS-X, NTREX and Multi30k, whose rows are an English sentence and its
translation. Rows with related content form a group that stays together: equal sentences, sentences
with the same names and numbers (at least three; PAWS-X words one statement in many ways), the two
sentences of a PAWS-X pair, a premise of XNLI and its hypotheses. Groups are ordered by a hash of
their English. Each of the first groups gives one gold pair, and its other rows are left out. Of
every later group only one side is kept, the same for every language. Gold pairs make up 3 % of a
side, as in BUCC.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from xtremely.eval.data.examples import TextPairs
from xtremely.eval.data.readers import Missing, existing, read_lines
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError, require

GOLD_SHARE = 0.03
NTREX = {"de": "deu", "fr": "fra", "zh": "zho-CN", "ru": "rus", "ar": "arb"}
MULTI30K = ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2018_flickr")

Row = tuple[str, str]  # English, its translation


@dataclass(frozen=True)
class MiningSet:
    """Two sides with ids, and the pairs of ids that translate each other."""

    x: dict[str, str]
    en: dict[str, str]
    gold: list[tuple[str, str]]


def mining_set(data_root: Path, code: str) -> MiningSet:
    """The set of a language and English."""
    groups = _groups(_sources(data_root, code))
    groups.sort(key=lambda rows: _hash(rows[0][0]))
    left = sum(map(len, groups))
    x: dict[str, str] = {}
    en: dict[str, str] = {}
    gold: list[tuple[str, str]] = []
    for rows in groups:
        left -= len(rows)
        names = [(f"{code}-{_hash(row[0])[:12]}", f"en-{_hash(row[0])[:12]}") for row in rows]
        if len(gold) < GOLD_SHARE * (len(gold) + left / 2):
            (english, foreign), pair = rows[0], names[0]
            x[pair[0]], en[pair[1]] = foreign, english
            gold.append(pair)
            continue
        on_x = int(_hash(rows[0][0])[-1], 16) % 2
        for (english, foreign), pair in zip(rows, names, strict=True):
            if on_x:
                x[pair[0]] = foreign
            else:
                en[pair[1]] = english
    return MiningSet(dict(sorted(x.items())), dict(sorted(en.items())), sorted(gold))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sources(root: Path, code: str) -> Iterator[list[Row]]:
    """Yield lists of rows that belong together."""
    for task, splits in (("xnli", ("dev", "test")), ("pawsx", ("dev", "test"))):
        if code not in find_task(task).languages:
            continue
        for split in splits:
            try:
                en, x = (find_task(task).read(root, name, split) for name in ("en", code))
            except Missing:
                continue
            assert isinstance(en, TextPairs) and isinstance(x, TextPairs)
            for row in zip(en.first, x.first, en.second, x.second, strict=True):
                yield [row[:2], row[2:]]
    folder = root / "parallel" / "ntrex"
    yield from _aligned(
        folder / "newstest2019-src.eng.txt", folder / f"newstest2019-ref.{NTREX[code]}.txt"
    )
    folder = root / "parallel" / "multi30k"
    if existing(folder / f"train.{code}"):
        for part in MULTI30K:
            yield from _aligned(folder / f"{part}.en", folder / f"{part}.{code}")


def _aligned(en: Path, x: Path) -> Iterator[list[Row]]:
    left, right = existing(en), existing(x)
    if left is None or right is None:
        raise InputError(f"{en} or {x} is missing")
    for row in zip(read_lines(left), read_lines(right), strict=True):
        yield [row]


def _groups(sources: Iterator[list[Row]]) -> list[list[Row]]:
    """Groups of rows that share a sentence or a list; each row appears once."""
    rows: dict[Row, int] = {}
    parent: list[int] = []

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = n = parent[parent[n]]
        return n

    owner: dict[tuple[int, str], int] = {}
    for together in sources:
        kept = [(en.strip(), x.strip()) for en, x in together if en.strip() and x.strip()]
        numbers = []
        for row in kept:
            number = rows.setdefault(row, len(rows))
            if number == len(parent):
                parent.append(number)
            numbers.append(number)
            keys = [(side, text.casefold()) for side, text in enumerate(row)]
            if names := _names(row[0]):
                keys.append((2, names))
            for key in keys:
                parent[root(number)] = root(owner.setdefault(key, number))
        for a, b in pairwise(numbers):
            parent[root(a)] = root(b)
    groups: dict[int, list[Row]] = {}
    for row, number in rows.items():
        groups.setdefault(root(number), []).append(row)
    return list(groups.values())


def _names(english: str) -> str:
    """The numbers and capitalised words of a sentence, sorted; empty for fewer than three."""
    words = {word for word in re.findall(r"\w+", english) if word[0].isupper() or word[0].isdigit()}
    return " ".join(sorted(words)) if len(words) >= 3 else ""


def write(found: MiningSet, folder: Path, code: str) -> None:
    """Write the set as three files in BUCC's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, side in ((code, found.x), ("en", found.en)):
        lines = "".join(f"{key}\t{text}\n" for key, text in side.items())
        (folder / f"{code}-en.{name}").write_text(lines, encoding="utf-8")
    lines = "".join(f"{a}\t{b}\n" for a, b in found.gold)
    (folder / f"{code}-en.gold").write_text(lines, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m xtremely.bench.mining_sets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the sets")
    parser.add_argument("--languages", default=",".join(NTREX))
    given = parser.parse_args(arguments)
    for code in given.languages.split(","):
        require(code in NTREX, f"no parallel text for {code!r}; legal: {', '.join(NTREX)}")
        found = mining_set(given.data_root, code)
        write(found, given.out, code)
        share = 100 * len(found.gold) / len(found.x)
        print(
            f"{code}-en: {len(found.x)} {code}, {len(found.en)} en, {len(found.gold)} pairs"
            f" ({share:.1f} %)"
        )


if __name__ == "__main__":
    main()
