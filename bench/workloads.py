"""Texts for benchmarks, with real lengths and scripts, in random order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xtremely.engine.config_json import read_json
from xtremely.eval.data import readers
from xtremely.eval.data.examples import Parallel
from xtremely.eval.tasks.xtreme import mini
from xtremely.eval.tasks.xtreme import tatoeba as tatoeba_task
from xtremely.kernels.guard import require

PASSAGE_TOKENS = (280, 420)

CountTokens = Callable[[Sequence[str]], np.ndarray]  # N texts -> [N] tokens, specials included


@dataclass(frozen=True)
class Workload:
    """Texts to time, and similar ones to choose settings on.

    Attributes:
        name: ``short`` or ``long``.
        source: description of where the texts come from.
        texts: the timed texts.
        tuning: half as many other texts, never timed for a result.
    """

    name: str
    source: str
    texts: list[str]
    tuning: list[str]


def tatoeba(data_root: Path | None, n: int, seed: int = 0) -> Workload:
    """``n`` sentences from every language of Tatoeba and from both sides, unsorted.

    Args:
        data_root: folder with the data; None for the packaged mini suite instead.
        n: number of sentences to time.
        seed: seed for the choice and order of sentences.
    """
    if data_root is None:
        return _draw("short", "mini suite (not XTREME)", itertools.chain(*_mini()), n, seed)
    pool: list[str] = []
    languages = 0
    for code in tatoeba_task.TASK.languages:
        try:
            pairs = tatoeba_task.TASK.read(data_root, code, "test")
        except readers.Missing:
            continue
        assert isinstance(pairs, Parallel)
        pool += pairs.x + pairs.en
        languages += 1
    require(bool(pool), "no Tatoeba file under the data root; see the layouts of task 'tatoeba'")
    return _draw("short", f"Tatoeba, {languages} languages and English", pool, n, seed)


def passages(data_root: Path | None, n: int, count: CountTokens, seed: int = 0) -> Workload:
    """``n`` paragraphs of 280 to 420 tokens from every language of XQuAD, unsorted.

    Args:
        data_root: folder with the data; None for joined sentences of the packaged mini suite.
        n: number of passages to time.
        count: counts tokens with the model's tokenizer.
        seed: seed for the choice and order of passages.
    """
    low, high = PASSAGE_TOKENS
    if data_root is None:
        joined = [text for sentences in _mini() for text in _joined(sentences, count, low)]
        return _draw("long", "mini suite (not XTREME), sentences joined", joined, n, seed)
    files = sorted((data_root / "xquad").glob("xquad.*.json"))
    require(bool(files), "no xquad/xquad.LL.json under the data root")
    contexts = [
        paragraph["context"]
        for path in files
        for article in read_json(path)["data"]
        for paragraph in article["paragraphs"]
    ]
    fitting = [
        text
        for text, tokens in zip(contexts, count(contexts), strict=True)
        if low <= tokens <= high
    ]
    source = f"XQuAD contexts of {low} to {high} tokens, {len(files)} languages"
    return _draw("long", source, fitting, n, seed)


def _mini() -> list[list[str]]:
    """The packaged sentences, one list per language."""
    return [readers.read_sentences(path) for path in sorted(mini.FOLDER.glob("*.txt"))]


def _joined(sentences: list[str], count: CountTokens, low: int) -> list[str]:
    """Neighbouring sentences joined until a passage has ``low`` tokens; the rest is dropped."""
    texts: list[str] = []
    parts: list[str] = []
    tokens = 0
    for sentence, length in zip(sentences, count(sentences), strict=True):
        parts.append(sentence)
        tokens += int(length)
        if tokens >= low:
            texts.append(" ".join(parts))
            parts, tokens = [], 0
    return texts


def _draw(name: str, source: str, pool: Iterable[str], n: int, seed: int) -> Workload:
    """A seeded sample; with too few texts, it has repeats and its source says so."""
    require(n >= 1, f"{n} texts were asked for; at least 1 is needed")
    texts = sorted(set(pool))
    require(bool(texts), f"{source}: no text fits")
    random.Random(seed).shuffle(texts)
    total = n + max(1, n // 2)
    if total > len(texts):
        source += ", repeated"
    drawn = list(itertools.islice(itertools.cycle(texts), total))
    return Workload(name, source, drawn[:n], drawn[n:])
