"""Speed of evaluating tagging and question answering, against padded inference in transformers.

    python -m xtremely.bench.tasks --data-root DATA --checkpoints FOLDER [--examples 200]

Every contender gets the same examples and returns predictions. Tokenising, running the model and
decoding are timed separately. The peer sorts by length (or does not), pads every batch and runs
transformers' class for the head. It is timed only if its predictions equal this engine's, apart
from a few ties. Rounds rotate, so a ratio compares two runs under the same load.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from xtremely.bench import machine
from xtremely.bench.harness import Spread
from xtremely.engine.runtime import Engine
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.eval.data.examples import Questions, Tagged, part
from xtremely.eval.methods.kinds import inference_of
from xtremely.eval.tasks.task import ExtractiveQARules, LabelRules, Task, find_task

RESULTS = Path(__file__).parent / "results"
BATCH = 32  # sequences of a padded batch
AGREE = 0.97  # share of equal predictions below which a peer is not timed
WINDOW, QUESTION, STRIDE = 384, 64, 128

Parts = dict[str, float]  # tokenise, model, decode -> seconds


@dataclass
class Run:
    """Seconds of the parts of a run, by name."""

    parts: Parts = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of a block."""
        start = time.perf_counter()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - start


Contender = Callable[[Run], list[Any]]


def xtremely_contender(engine: Engine, task: Task, examples: Any) -> Contender:
    """This engine; its tokenizer's cache is cleared before every round."""
    method = inference_of(task)
    labels = task.rules.labels if isinstance(task.rules, LabelRules) else ()
    head = engine.head(method.head, labels)

    def run(clock: Run) -> list[Any]:
        engine.tokenizer = Tokenizer(engine.folder, engine.backend.max_length)
        with clock.timed("tokenise"):
            asked = method.ask(engine, head, task, examples, task.max_length)
        with clock.timed("model"):
            engine.predict(head, asked.tokens, asked.take)
        with clock.timed("decode"):
            return asked.predictions()

    return run


def padded(lengths: Sequence[int], sort: bool) -> Iterator[list[int]]:
    """Batches of 32, longest first or in the given order."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i]) if sort else range(len(lengths))
    rows = list(order)
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def tagging_peer(folder: Path, task: Task, examples: Tagged, sort: bool) -> Contender:
    """transformers' token classification, as in its example script."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()

    @torch.inference_mode()
    def run(clock: Run) -> list[Any]:
        with clock.timed("tokenise"):
            encoded = tokenizer(examples.words, is_split_into_words=True, truncation=True)
            rows = encoded["input_ids"]
            owners = [encoded.word_ids(i) for i in range(len(rows))]
        found: list[Any] = [None] * len(rows)
        for batch in padded([*map(len, rows)], sort):
            with clock.timed("model"):
                inputs = tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt")
                best = model(**inputs).logits.argmax(-1)
            with clock.timed("decode"):
                for line, i in zip(best.tolist(), batch, strict=True):
                    tags: dict[int, str] = {}
                    for owner, label in zip(owners[i], line, strict=False):
                        if owner is not None and owner not in tags:
                            tags[owner] = model.config.id2label[label]
                    found[i] = [tags.get(word) for word in range(len(examples.words[i]))]
        return found

    return run


def answering_peer(folder: Path, task: Task, examples: Questions, sort: bool) -> Contender:
    """transformers' question answering: pairs with overflowing windows, the best span of each."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    rules = task.rules
    assert isinstance(rules, ExtractiveQARules)
    texts = [question.text for question in examples.questions]
    contexts = [examples.contexts[question.context] for question in examples.questions]

    @torch.inference_mode()
    def run(clock: Run) -> list[Any]:
        with clock.timed("tokenise"):
            encoded = tokenizer(
                texts,
                contexts,
                truncation="only_second",
                max_length=WINDOW,
                stride=WINDOW - QUESTION - STRIDE,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
        rows, owners = encoded["input_ids"], encoded["overflow_to_sample_mapping"]
        best: dict[int, tuple[float, str]] = {}
        for batch in padded([*map(len, rows)], sort):
            with clock.timed("model"):
                inputs = tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt")
                outputs = model(**inputs)
                starts, ends = outputs.start_logits.numpy(), outputs.end_logits.numpy()
            with clock.timed("decode"):
                for line, i in enumerate(batch):
                    score, span = _best_span(
                        starts[line, : len(rows[i])],
                        ends[line, : len(rows[i])],
                        np.array([kind == 1 for kind in encoded.sequence_ids(i)]),
                        rules.longest,
                    )
                    offsets, text = encoded["offset_mapping"][i], contexts[owners[i]]
                    answer = text[offsets[span[0]][0] : offsets[span[1]][1]].strip()
                    best[owners[i]] = max(best.get(owners[i], (-np.inf, "")), (score, answer))
        return [best[i][1] for i in range(len(texts))]

    return run


def _best_span(
    starts: np.ndarray, ends: np.ndarray, inside: np.ndarray, longest: int
) -> tuple[float, tuple[int, int]]:
    """The best span between the 20 likeliest starts and the 20 likeliest ends."""
    starts, ends = (np.where(inside, logits, -np.inf) for logits in (starts, ends))
    found = (-np.inf, (0, 0))
    for i in np.argsort(-starts)[:20]:
        for j in np.argsort(-ends)[:20]:
            if i <= j < i + longest and starts[i] + ends[j] > found[0]:
                found = (float(starts[i] + ends[j]), (int(i), int(j)))
    return found


PEERS: dict[str, Callable[[Path, Task, Any, bool], Contender]] = {
    "tag": tagging_peer,
    "span": answering_peer,
}


def compare(
    engine: Engine, task: Task, language: str, data_root: Path, examples: int, rounds: int
) -> dict[str, Any]:
    """Time the engine and both peers on one task."""
    whole = task.load(data_root, language)["test"]
    assert isinstance(whole, Tagged | Questions)
    data = part(whole, slice(examples))
    peer = PEERS[task.kind]
    contenders = {
        "xtremely": xtremely_contender(engine, task, data),
        "transformers, sorted": peer(engine.folder, task, data, True),
        "transformers, as they come": peer(engine.folder, task, data, False),
    }
    expected = contenders["xtremely"](Run())
    agreement, timed = {}, []
    for name, contender in contenders.items():
        found = contender(Run())
        agreement[name] = sum(a == b for a, b in zip(found, expected, strict=True)) / len(found)
        if agreement[name] >= AGREE:
            timed.append(name)
    runs: dict[str, list[Parts]] = {name: [] for name in timed}
    for number in range(rounds):
        for name in timed[number % len(timed) :] + timed[: number % len(timed)]:
            clock = Run()
            contenders[name](clock)
            runs[name].append(clock.parts)
    own = [sum(parts.values()) for parts in runs["xtremely"]]
    return {
        "task": task.name,
        "language": language,
        "examples": len(data),
        "agreement": {name: round(share, 4) for name, share in agreement.items()},
        "seconds": {
            name: {
                part_name: Spread.of([parts[part_name] for parts in found]).json(3)
                for part_name in found[0]
            }
            for name, found in runs.items()
        },
        "xtremely_over": {
            name: Spread.of(
                [sum(parts.values()) / mine for parts, mine in zip(found, own, strict=True)]
            ).json(3)
            for name, found in runs.items()
            if name != "xtremely"
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on UDPOS and XQuAD; the result is one line of JSON and a file."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.tasks")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    results = []
    for name, language, examples in (
        ("udpos", "en", 5 * given.examples),
        ("xquad", "zh", given.examples),
    ):
        task = find_task(name)
        engine = Engine.load(str(given.checkpoints / (task.checkpoint or "")), backend="torch")
        results.append(compare(engine, task, language, given.data_root, examples, given.rounds))
        print(json.dumps(results[-1]))
    document: dict[str, Any] = {
        "benchmark": "tasks",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(torch.device("cpu")),
        "results": results,
    }
    stem = f"tasks-{machine.slug(document['machine']['processor'])}-{document['date']}"
    path = RESULTS / f"{stem}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"file": path.name}))


if __name__ == "__main__":
    main()
