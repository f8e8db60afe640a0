"""Lengths of XTREME's texts in XLM-R tokens; writes ``lengths.json``.

    python -m xtremely.bench.lengths --data-root ../shared/data

The lengths come from a seeded sample of every task's real inputs: sentences for Tatoeba, BUCC and
PAN-X, pairs for XNLI, question and context in windows of 384 for XQuAD. Only the counts of lengths
are written.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from xtremely.engine.runtime import Engine
from xtremely.eval.data import readers

SAMPLE = 4000
WINDOW, STRIDE = 384, 128
TARGET = Path(__file__).parent / "lengths.json"


def sentences(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Task -> single texts."""
    files = sorted((root / "tatoeba").glob("tatoeba.*-eng.*"))
    yield "tatoeba", [line for path in files for line in readers.read_lines(path)]
    bucc = [readers.read_identified(root / f"bucc2018/zh-en.dev.{side}") for side in ("zh", "en")]
    yield "bucc2018", [text for _, texts in bucc for text in texts]
    tagged = []
    for path in sorted((root / "panx").glob("test-*.tsv.gz")):
        words: list[str] = []
        for line in [*readers.read_lines(path)[:20_000], ""]:
            if line.strip():
                words.append(line.split("\t")[0])
            elif words:
                tagged.append(" ".join(words))
                words = []
    yield "panx", tagged


def pairs(root: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Task -> pairs of texts."""
    files = sorted((root / "xnli").glob("test-*.tsv"))
    rows = [line.split("\t") for path in files for line in readers.read_lines(path)]
    yield "xnli", [(row[0], row[1]) for row in rows]
    asked = []
    for path in sorted((root / "xquad").glob("xquad.*.json")):
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                asked += [(qa["question"], paragraph["context"]) for qa in paragraph["qas"]]
    yield "xquad", asked


def windows(question: int, context: int) -> list[int]:
    """Lengths of a question's windows, with four special tokens each."""
    room, found, start = WINDOW - question - 4, [], 0
    while True:
        found.append(min(room, context - start) + question + 4)
        if start + room >= context:
            return found
        start += STRIDE


def main(arguments: Sequence[str] | None = None) -> None:
    """Count lengths and write the file."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.lengths", description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    root = parser.parse_args(arguments).data_root
    count = Engine.load("e5-small-4bit").tokenizer
    rng, found = random.Random(0), {}
    for task, texts in sentences(root):
        found[task] = count(rng.sample(texts, min(SAMPLE, len(texts)))).lengths.tolist()
    for task, both in pairs(root):
        drawn = rng.sample(both, min(SAMPLE, len(both)))
        first, second = (np.array(count(side).lengths) - 2 for side in zip(*drawn, strict=True))
        if task == "xquad":
            spread = [windows(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
            found[task] = [length for one in spread for length in one]
        else:
            found[task] = np.minimum(first + second + 4, 128).tolist()
    table = {task: dict(sorted(Counter(lengths).items())) for task, lengths in found.items()}
    TARGET.write_text(json.dumps(table) + "\n", encoding="utf-8")
    for task, lengths in found.items():
        print(f"{task}: mean {np.mean(lengths):.1f}, longest {max(lengths)}")


if __name__ == "__main__":
    main()
