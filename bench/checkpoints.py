"""Fine-tuned checkpoints to evaluate, one a task that needs a head, in minutes on a CPU.

    python -m xtremely.bench.checkpoints --data-root DATA --out FOLDER [--only udpos]

Every checkpoint is transformers' own model class, trained by its Trainer from the packaged model on
English training data (the word embeddings stay as they are) and saved as an ordinary folder.
These are checkpoints to measure an engine on, not good models: a few thousand examples each.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from xtremely.engine.models import locate
from xtremely.eval.examples import Questions, TextPairs
from xtremely.eval.read_pairs import read_table, text_pairs
from xtremely.eval.read_squad import read_squad
from xtremely.eval.task import Labelling, find_task

MODEL = "e5-small-4bit"
MAX_LENGTH = {"pair": 128, "tag": 128, "span": 384}
OVERLAP = 256  # of neighbouring windows of a context: they start 128 tokens apart

SNLI_COLUMNS = ("premise", "hypothesis", "label")

Feature = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a checkpoint is trained on.

    Attributes:
        task: the task whose head it gets.
        examples: (data root) -> examples of the task's kind.
        limit: examples taken.
        epochs: passes over them.
    """

    task: str
    examples: Callable[[Path], Any]
    limit: int
    epochs: int


def read(task: str, split: str) -> Callable[[Path], Any]:
    """A task's own English split."""
    return lambda root: find_task(task).read(root, "en", split)


def snli(root: Path) -> TextPairs:
    """SNLI's validation and test parts, which stand in for MultiNLI."""
    names = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    rows = [
        row
        for part in ("validation", "test")
        for row in read_table(root / "nli" / "snli" / f"{part}.tsv", SNLI_COLUMNS)
    ]
    return text_pairs(rows, find_task("xnli").rules.labels, names)


def squad(root: Path) -> Questions:
    """The subset of SQuAD's training questions."""
    return read_squad(root / "qa" / "squad_subset" / "squad-v1.1-subset.json")


PLANS = {
    "udpos": Plan("udpos", read("udpos", "train"), 6000, 2),
    "panx": Plan("panx", read("panx", "train"), 4000, 2),
    "xnli": Plan("xnli", snli, 8000, 1),
    "pawsx": Plan("pawsx", read("pawsx", "dev"), 2000, 1),
    "squad": Plan("xquad", squad, 1500, 1),
    "tydiqa": Plan("tydiqa", read("tydiqa", "train"), 1000, 1),
}


def train(name: str, root: Path, out: Path, seed: int = 1) -> None:
    """Train one checkpoint into ``out/name``."""
    plan, folder = PLANS[name], locate(MODEL)
    task = find_task(plan.task)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    features = list(FEATURES[task.kind](tokenizer, plan.examples(root), task))
    random.Random(seed).shuffle(features)
    features = features[: plan.limit]
    transformers.set_seed(seed)
    model = _model(task, folder)
    model.base_model.embeddings.word_embeddings.requires_grad_(False)
    collator = (
        transformers.DataCollatorForTokenClassification(tokenizer)
        if task.kind == "tag"
        else transformers.DataCollatorWithPadding(tokenizer)
    )
    settings = transformers.TrainingArguments(
        output_dir=str(out / name),
        num_train_epochs=plan.epochs,
        per_device_train_batch_size=32,
        learning_rate=1e-4,
        warmup_steps=50,
        seed=seed,
        save_strategy="no",
        report_to="none",
        logging_steps=25,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        train_sampling_strategy="group_by_length",
    )
    trainer = transformers.Trainer(model, settings, collator, features)
    start = time.perf_counter()
    trainer.train()
    print(f"{name}: {len(features)} examples, {time.perf_counter() - start:.0f} s")
    trainer.save_model(str(out / name))
    tokenizer.save_pretrained(out / name)


def _model(task: Any, folder: Path) -> transformers.PreTrainedModel:
    if task.kind == "span":
        return transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
    assert isinstance(task.rules, Labelling)
    labels = dict(enumerate(task.rules.labels))
    kind = {
        "pair": transformers.AutoModelForSequenceClassification,
        "tag": transformers.AutoModelForTokenClassification,
    }[task.kind]
    return kind.from_pretrained(
        folder, id2label=labels, label2id={label: number for number, label in labels.items()}
    )


def pair_features(tokenizer: Any, data: Any, task: Any) -> Iterator[Feature]:
    """Both texts in one sequence, and the label."""
    for first, second, label in zip(data.first, data.second, data.labels, strict=True):
        encoded = tokenizer(first, second, truncation=True, max_length=MAX_LENGTH["pair"])
        yield {**encoded, "labels": task.rules.labels.index(label)}


def tag_features(tokenizer: Any, data: Any, task: Any) -> Iterator[Feature]:
    """Words as pieces; the label on a word's first piece."""
    number = {label: place for place, label in enumerate(task.rules.labels)}
    for words, tags in zip(data.words, data.tags, strict=True):
        encoded = tokenizer(
            words, is_split_into_words=True, truncation=True, max_length=MAX_LENGTH["tag"]
        )
        owners = encoded.word_ids()
        labels = [
            number[tags[owner]] if owner is not None and owner != before else -100
            for before, owner in zip([None, *owners], owners, strict=False)
        ]
        yield {**encoded, "labels": labels}


def span_features(tokenizer: Any, data: Questions, task: Any) -> Iterator[Feature]:
    """Windows that hold the answer, with its first and last token."""
    for question in data.questions:
        context = data.contexts[question.context]
        begin, answer = question.starts[0], question.answers[0]
        if context[begin : begin + len(answer)] != answer:
            continue
        encoded = tokenizer(
            question.text,
            context,
            truncation="only_second",
            max_length=MAX_LENGTH["span"],
            stride=OVERLAP,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for window in range(len(encoded["input_ids"])):
            inside = [
                place
                for place, (owner, (a, b)) in enumerate(
                    zip(
                        encoded.sequence_ids(window),
                        encoded["offset_mapping"][window],
                        strict=True,
                    )
                )
                if owner == 1 and b > begin and a < begin + len(answer)
            ]
            whole = inside and encoded["offset_mapping"][window][inside[-1]][1] >= begin + len(
                answer
            )
            if whole and encoded["offset_mapping"][window][inside[0]][0] <= begin:
                yield {
                    "input_ids": encoded["input_ids"][window],
                    "attention_mask": encoded["attention_mask"][window],
                    "start_positions": inside[0],
                    "end_positions": inside[-1],
                }


FEATURES = {"pair": pair_features, "tag": tag_features, "span": span_features}


def main(arguments: list[str] | None = None) -> None:
    """Train the checkpoints that are not there yet."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.checkpoints")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=PLANS, action="append")
    given = parser.parse_args(arguments)
    for name in given.only or PLANS:
        if not (given.out / name / "model.safetensors").exists():
            train(name, given.data_root, given.out)


if __name__ == "__main__":
    main()
