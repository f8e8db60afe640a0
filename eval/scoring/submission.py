"""Reading predictions in XTREME's submission layout, together with their gold labels.

    TASK/test-LL.tsv    one label per line (tagging: blank lines end sentences; BUCC: two ids)
    TASK/test-LL.json   question id -> answer; the gold labels are SQuAD's JSON
                        (LAReQA, Mewsli-X: query id -> candidates, best first)
    xcopa/test-LL.jsonl an object with "label", 0 or 1, per line

Every reader takes the two files of one language and returns predictions and gold. What XTREME's
scorer accepts and counts as wrong is accepted with a warning. What can only be a mistake (a label
that does not exist, an unknown id, unequal counts) is an error with file and line.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from xtremely.eval.data.readers import (
    existing,
    read_json,
    read_json_lines,
    read_lines,
    whole_number,
)
from xtremely.eval.data.squad import read_articles
from xtremely.files.documents import ANYTHING
from xtremely.kernels.guard import InputError, require


def locate(
    predictions: Path, labels: Path, task: str, languages: Iterable[str], suffix: str
) -> dict[str, tuple[Path, Path]]:
    """Each language's two files, compressed or not; an error names every missing one."""
    names = {code: Path(task, f"test-{code}{suffix}") for code in languages}
    files = {code: (predictions / name, labels / name) for code, name in names.items()}
    missing = [str(path) for both in files.values() for path in both if not existing(path)]
    require(
        not missing,
        f"task {task!r} is scored on all of its {len(files)} languages; missing:"
        f" {', '.join(missing)}",
    )
    return {
        code: (existing(guess) or guess, existing(gold) or gold)
        for code, (guess, gold) in files.items()
    }


def read_labels(predicted: Path, gold: Path, legal: Collection[str]) -> tuple[list[str], list[str]]:
    """Read files with one label per line: as many predictions as labels, none blank."""
    truth, guess = _stripped(gold), _stripped(predicted)
    for number, label in enumerate(truth, start=1):
        require(
            bool(label),
            f"{gold}:{number}: a blank line is no label; gold has a label on each line, and no"
            " blank line at its end",
        )
    _check_labels(predicted, guess, gold, truth, {*legal})
    _check_counts(predicted, guess, gold, truth)
    return guess, truth


def read_rows(predicted: Path, gold: Path) -> tuple[list[str], list[str]]:
    """Read Tatoeba's files: for each English line, the row of its translation, from 0."""
    truth, guess = _stripped(gold), _stripped(predicted)
    for path, lines in ((gold, truth), (predicted, guess)):
        for number, line in enumerate(lines, start=1):
            row = whole_number(line)
            if row is None or line != str(row):
                raise InputError(
                    f"{path}:{number}: {line!r} is no row of the foreign file; legal: a number"
                    " from 0"
                )
    _check_counts(predicted, guess, gold, truth)
    for path, lines in ((gold, truth), (predicted, guess)):
        for number, line in enumerate(lines, start=1):
            if int(line) >= len(truth):
                raise InputError(
                    f"{path}:{number}: row {line} of a foreign file of {len(truth)} sentences;"
                    f" legal: 0 to {len(truth) - 1} (are rows counted from 1?)"
                )
    right, shifted = (
        sum(int(row) - less == int(true) for row, true in zip(guess, truth, strict=True))
        for less in (0, 1)
    )
    if shifted > right:
        _note(
            f"{predicted}: {right} of {len(truth)} rows are right, {shifted} would be if the file"
            " counted rows from 1; legal: from 0"
        )
    return guess, truth


def read_tags(
    predicted: Path, gold: Path, legal: Collection[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Read files with one tag per line; both must have equally many sentences.

    Sentences of unequal length are scored unchanged, with a warning. Spans are numbered through
    the file, so a missing tag makes every later span wrong.
    """
    truth, guess = _stripped(gold), _stripped(predicted)
    _check_labels(predicted, guess, gold, truth, {*legal, ""})
    expected, sentences = _sentences(truth), _sentences(guess)
    require(
        len(sentences) == len(expected),
        f"{predicted}: {len(sentences)} sentences, {gold} has {len(expected)}"
        + _on_empty(sentences),
    )
    unequal = [n for n in range(len(expected)) if len(sentences[n]) != len(expected[n])]
    if unequal:
        n = unequal[0]
        _note(
            f"{predicted}:{_line(sentences, n)}: sentence {n + 1} has {len(sentences[n])} tags, the"
            f" labels have {len(expected[n])} ({len(unequal)} such sentences in the file); as"
            " XTREME's scorer does, spans are numbered through, so later ones no longer match"
        )
    return sentences, expected


def read_pairs(predicted: Path, gold: Path) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Read BUCC's files of ``id TAB id`` lines as sets; a repeated pair counts once.

    Gold has only some of the sentences, so an id is recognised by its prefix: ``de-`` or ``en-``.
    """
    truth, guess = {*_pairs(gold).values()}, _pairs(predicted)
    require(bool(truth), f"{gold}: the file is empty")
    begins = [_beginning(side) for side in zip(*truth, strict=True)]
    for number, pair in guess.items():
        found = [_beginning([name]) for name in pair]
        if None not in begins and begins[0] != begins[1] and found != begins:
            reason = "the columns are swapped" if found == begins[::-1] else "other ids"
            raise InputError(
                f"{predicted}:{number}: {reason}: {' and '.join(pair)}, where {gold} has ids that"
                f" begin with {' and '.join(map(str, begins))}"
            )
    pairs = {*guess.values()}
    if not pairs:
        _note(f"{predicted}: no pair predicted; scores 0")
    elif not pairs & truth:
        swapped = {pair[::-1] for pair in pairs} & truth
        require(
            not swapped,
            f"{predicted}: the columns are swapped: {len(swapped)} pairs of {gold} stand in it the"
            " other way round",
        )
        for column, name in enumerate(("first", "second")):
            if not {pair[column] for pair in pairs} & {pair[column] for pair in truth}:
                _note(
                    f"{predicted}: no id of the {name} column occurs in {gold}; are they of this"
                    " language and split?"
                )
    return pairs, truth


def read_answers(predicted: Path, gold: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read question id -> answer and question id -> gold answers; a missing answer scores 0."""
    asked, contexts = _gold_answers(gold)
    found = read_json(predicted, ANYTHING)
    require(isinstance(found, dict), f"{predicted}: not a JSON object of question id: answer")
    for name, answer in found.items():
        require(
            name in asked,
            f"{predicted}: an answer to {name!r}, an id of no question in {gold}; is it the file of"
            " another language or split?",
        )
        require(
            isinstance(answer, str),
            f"{predicted}: the answer to {name!r} is {json.dumps(answer)}; legal: a string (empty"
            " for no answer)",
        )
    absent = [name for name in asked if name not in found]
    if absent:
        _note(
            f"{predicted}: {len(absent)} of {len(asked)} questions have no answer and score 0, the"
            f" first is {absent[0]!r}"
        )
    given = [name for name in found if found[name].strip() and contexts[name]]
    outside = [name for name in given if _bare(found[name]) not in contexts[name]]
    if 2 * len(outside) > len(given):
        _note(
            f"{predicted}: {len(outside)} of {len(given)} answers do not stand in the question's"
            f" context in {gold}, the first is to {outside[0]!r}; is it the file of another"
            " language?"
        )
    return found, asked


def read_rankings(
    predicted: Path, gold: Path, truth: Collection[str], candidates: Collection[str]
) -> dict[str, list[str]]:
    """Read query id -> ids of candidates, best first; a missing query scores 0.

    A candidate that occurs twice for a query counts once, with a warning.

    Args:
        predicted: the file.
        gold: the file with the labels, for error messages.
        truth: ids of its queries.
        candidates: ids of all candidates; empty where they are not known.
    """
    found = read_json(predicted, ANYTHING)
    require(isinstance(found, dict), f"{predicted}: not a JSON object of query id: candidates")
    for name, ranked in found.items():
        require(
            name in truth,
            f"{predicted}: candidates for {name!r}, an id of no query in {gold}; is it the file of"
            " another language or split?",
        )
        require(
            isinstance(ranked, list) and all(isinstance(one, str) for one in ranked),
            f"{predicted}: the candidates for {name!r} are {json.dumps(ranked)[:80]}; legal: a list"
            " of ids, best first",
        )
        foreign = [one for one in ranked if candidates and one not in candidates]
        require(
            not foreign,
            f"{predicted}: {foreign[0] if foreign else ''!r} among the candidates for {name!r} is"
            f" none of the {len(candidates):,} candidates of the pool; legal: ids such as"
            f" {next(iter(candidates), '')!r}",
        )
    absent = [name for name in truth if name not in found]
    if absent:
        _note(
            f"{predicted}: {len(absent)} of {len(truth)} queries have no candidates and score 0,"
            f" the first is {absent[0]!r}"
        )
    repeated = [name for name, ranked in found.items() if len({*ranked}) < len(ranked)]
    if repeated:
        _note(
            f"{predicted}: {len(repeated)} of {len(found)} queries have a candidate twice, the"
            f" first is {repeated[0]!r}; the second occurrence counts as wrong"
        )
    return found


def read_choices(predicted: Path, gold: Path) -> tuple[list[str], list[str]]:
    """Read XCOPA's files: on every line an object whose ``label`` is the right choice."""
    truth, guess = ([*map(str, _choices(path))] for path in (gold, predicted))
    _check_counts(predicted, guess, gold, truth)
    return guess, truth


@dataclass(frozen=True)
class _Choice:
    """A line of XCOPA's files."""

    label: int


def _choices(path: Path) -> list[int]:
    labels = [row.label for row in read_json_lines(path, _Choice)]
    for number, label in enumerate(labels, start=1):
        require(
            label in (0, 1),
            f"{path}:{number}: 'label' is {label}; legal: 0 or 1"
            + (" (are the labels hidden?)" if label == -1 else ""),
        )
    return labels


def _note(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _stripped(path: Path) -> list[str]:
    lines = [line.strip() for line in read_lines(path)]
    require(bool(lines), f"{path}: the file is empty")
    return lines


def _check_labels(
    predicted: Path, guess: list[str], gold: Path, truth: list[str], legal: set[str]
) -> None:
    """Raise InputError unless every prediction is a label of the task or of the gold file."""
    undeclared = sorted({*truth} - legal)
    columns = [label for label in undeclared if "\t" in label]
    require(
        not columns,
        f"{gold}: {columns[0] if columns else ''!r} is no label but a line of the data set; gold"
        " has the label alone on each line, as the predictions do",
    )
    if undeclared:
        _note(
            f"{gold}: {len(undeclared)} labels that the task does not declare, kept as they are:"
            f" {', '.join(map(repr, undeclared[:5]))}"
        )
    legal = legal.union(undeclared)
    unknown = {*guess} - legal
    if unknown:
        number, line = next((n, line) for n, line in enumerate(guess, 1) if line in unknown)
        shown = repr(line) if line else "a blank line"
        raise InputError(
            f"{predicted}:{number}: {shown} is not a label of this task; legal:"
            f" {', '.join(sorted(legal - {''}))}"
        )


def _check_counts(predicted: Path, guess: list[str], gold: Path, truth: list[str]) -> None:
    require(
        len(guess) == len(truth),
        f"{predicted}: {len(guess)} lines, {gold} has {len(truth)}; one line for each is needed",
    )


def _sentences(lines: list[str]) -> list[list[str]]:
    """Sentences as XTREME's scorer reads them: every blank line ends one, even an empty one."""
    sentences: list[list[str]] = [[]]
    for line in lines:
        if line:
            sentences[-1].append(line)
        else:
            sentences.append([])
    return sentences if sentences[-1] else sentences[:-1]


def _line(sentences: list[list[str]], place: int) -> int:
    """The number of the line at which a sentence begins."""
    return 1 + sum(len(sentence) + 1 for sentence in sentences[:place])


def _on_empty(sentences: list[list[str]]) -> str:
    empty = [n for n, sentence in enumerate(sentences) if not sentence]
    if not empty:
        return "; a blank line must close every sentence and stand nowhere else"
    return (
        f"; the blank line {_line(sentences, empty[0])} closes no sentence, which adds an empty one"
        f" ({len(empty)} in the file): remove it"
    )


def _beginning(ids: Iterable[str]) -> str | None:
    """The common prefix of some ids before their numbers; None if they differ."""
    begins = {name.rstrip("0123456789") for name in ids}
    return begins.pop() if len(begins) == 1 else None


def _pairs(path: Path) -> dict[int, tuple[str, str]]:
    """Line -> the two ids on it."""
    pairs = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        require(len(fields) == 2, f"{path}:{number}: {len(fields)} columns, expected id TAB id")
        require(all(fields), f"{path}:{number}: an id is empty; expected id TAB id")
        pairs[number] = (fields[0], fields[1])
    return pairs


def _gold_answers(path: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Question id -> answers, and question id -> context after ``_bare``, from SQuAD's JSON.

    Contexts and offsets do not affect a score; a context that is not text counts as empty.
    """
    asked: dict[str, list[object]] = {}
    contexts: dict[str, str] = {}
    for paragraph in (one for article in read_articles(path) for one in article.paragraphs):
        context = _bare(paragraph.context) if isinstance(paragraph.context, str) else ""
        for question in paragraph.qas:
            require(question.id not in asked, f"{path}: id {question.id!r} occurs twice")
            asked[question.id] = [answer.text for answer in question.answers]
            contexts[question.id] = context
    require(bool(asked), f"{path}: holds no question")
    for name, texts in asked.items():
        require(
            all(isinstance(text, str) for text in texts) and any(texts),
            f"{path}: question {name!r} has no gold answer to be scored against (answers"
            f" {json.dumps(texts)}); are the answers hidden?",
        )
    answers = {
        name: [text for text in texts if isinstance(text, str) and text]
        for name, texts in asked.items()
    }
    return answers, contexts


def _bare(text: str) -> str:
    """A text in lower case without white space, as tokenizers change both."""
    return "".join(text.split()).casefold()
