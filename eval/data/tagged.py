"""Reading sentences with a tag for every word.

Two oddities are kept, scored and counted in the notes: ``empty_words`` (only white space) and
``broken_spans`` (an I-X after neither B-X nor I-X, which opens a span for the benchmark's scorer,
see ``metrics.spans``; one warning per file).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, groupby, islice, pairwise
from pathlib import Path
from typing import Any

from xtremely.eval.data.examples import Tagged
from xtremely.eval.data.readers import read_lines
from xtremely.eval.data.tables import Table
from xtremely.kernels.guard import InputError, require

_LANGUAGE = re.compile("[a-z]{2,3}(-[a-z]+)*:")  # before every word of WikiANN's own files


def read_tagged(path: Path, legal: Sequence[str], prefix: str = "", **notes: Any) -> Tagged:
    """The sentences of a file of ``word TAB tag`` lines, or words alone, separated by blank lines.

    Args:
        path: a text file, compressed or not.
        legal: the tags of the task.
        prefix: prefix of every word, which is removed; in WikiANN, the language and a colon.
        notes: added to the notes beside the counts.

    Raises:
        InputError: empty; a tag that the task does not have; a word without a tag where others
            have one; other columns. The message names the line.
    """
    lines = [line.rstrip() for line in read_lines(path)]
    filled = [line for line in lines if line]
    require(bool(filled), f"{path}: the file is empty")
    tabs = 1 if any("\t" in line for line in filled) else 0
    if not tabs and _parted_by_spaces(filled, legal):
        raise InputError(f"{path}: columns are parted by spaces; expected word TAB tag")
    if {line.count("\t") for line in filled} != {tabs}:
        where, line = _first(path, lines, lambda line: line.count("\t") != tabs)
        raise InputError(f"{where}: {_fault(line)}; expected word TAB tag")
    if not all(line.startswith(prefix) for line in filled):
        where, line = _first(path, lines, lambda line: not line.startswith(prefix))
        raise InputError(
            f"{where}: {line!r} does not begin with {prefix!r} as words of this language do; is it"
            " the file of another one?"
        )
    # Split the whole file at once: a list per line takes several times as long.
    fields = "\t".join(filled).split("\t")
    words, tags = fields[:: tabs + 1], fields[1::2] if tabs else []
    if not {*tags} <= {*legal}:
        where, line = _first(path, lines, lambda line: line.partition("\t")[2] not in legal)
        check_tag(line.partition("\t")[2], legal, where)
    words = [word.removeprefix(prefix) for word in words]
    lengths = [sum(1 for _ in group) for filled, group in groupby(lines, bool) if filled]
    sentences = _cut(map(str.strip, words), lengths)
    return _remarked(tagged(sentences, _cut(tags, lengths) if tabs else None, **notes), path)


def check_words(data: Tagged, source: Path | str) -> Tagged:
    """The same sentences, whose words are not those of WikiANN's own files with their language.

    Raises:
        InputError: every word begins with the same language code and a colon.
    """
    words = [*chain.from_iterable(data.words)]
    found = _LANGUAGE.match(words[0])
    require(
        found is None or not all(word.startswith(found[0]) for word in words),
        f"{source}: every word begins with {found[0] if found else ''!r}, as in WikiANN's own"
        " files; put the file where those are looked for, or take the beginnings off",
    )
    return data


def tagged_rows(table: Table, legal: Sequence[str], **notes: Any) -> Tagged:
    """The sentences of a Hugging Face table with two columns, words and tags.

    Raises:
        InputError: other columns, unequal numbers of words and tags, or a tag that the task does
            not have. The message names the row.
    """
    sentences, labels = table.columns()
    require(any(sentences), f"{table.name}: no sentence has a word")
    if not any(map(any, labels)):
        return tagged(sentences, None, **notes)
    for number, (sentence, row) in enumerate(zip(sentences, labels, strict=True)):
        require(
            len(sentence) == len(row),
            f"{table.place(number)} has {len(sentence)} words and {len(row)} tags",
        )
        for tag in row:
            check_tag(tag, legal, table.place(number))
    return _remarked(tagged(sentences, labels, **notes), table.name)


def tagged(words: list[list[str]], tags: list[list[str]] | None, **notes: Any) -> Tagged:
    """Sentences with legal tags, with their oddities counted in the notes."""
    counts = {
        "empty_words": sum(sentence.count("") for sentence in words),
        "broken_spans": _broken_spans(tags or ()),
    }
    return Tagged(words, tags, {**notes, **{name: n for name, n in counts.items() if n}})


def _remarked(data: Tagged, source: Path | str) -> Tagged:
    """The same sentences, after one warning per file about broken spans."""
    broken = data.notes.get("broken_spans", 0)
    if broken:
        warnings.warn(
            f"{source}: {broken} I- tags follow no tag of their own span; they are kept, and open"
            " one, as XTREME's scorer has it",
            stacklevel=3,
        )
    return data


def check_tag(tag: str, legal: Sequence[str], where: str) -> None:
    """Raise InputError unless the task has the tag."""
    if tag not in legal:
        raise InputError(
            f"{where}: tag {tag!r} is not one of this task's; legal: {', '.join(legal)}"
        )


def _cut(flat: Iterable[str], lengths: Sequence[int]) -> list[list[str]]:
    rest = iter(flat)
    return [list(islice(rest, length)) for length in lengths]


def _broken_spans(tags: Sequence[Sequence[str]]) -> int:
    neighbours = Counter(pairwise(tag for sentence in tags for tag in ("", *sentence)))
    return sum(
        count
        for (before, tag), count in neighbours.items()
        if tag.startswith("I-") and before[2:] != tag[2:]
    )


def _parted_by_spaces(lines: Sequence[str], legal: Sequence[str]) -> bool:
    """Whether every line has two fields, or a legal tag as its last one, if spaces part them."""
    fields = [line.split(" ") for line in lines]
    pairs = all(len(parts) == 2 for parts in fields)
    return pairs or all(len(parts) > 1 and parts[-1] in legal for parts in fields)


def _first(path: Path, lines: list[str], wrong: Callable[[str], bool]) -> tuple[str, str]:
    """The place of the first non-blank wrong line, and the line."""
    return next(
        (f"{path}:{number}", line)
        for number, line in enumerate(lines, start=1)
        if line and wrong(line)
    )


def _fault(line: str) -> str:
    columns = line.count("\t") + 1
    if columns > 2:
        return f"{columns} columns"
    return f"the word {line!r} has no tag, others of the file have one"
