"""Training speed against transformers' Trainer with its defaults: same examples, model and steps.

    python -m xtremely.bench.training --data-root DATA [--sentences 2000] [--epochs 3] [--rounds 3]

Both train a UDPOS tagger from the same folder with AdamW, in the same precision. The peer draws in
random order, pads to the longest sequence of a batch and trains every word embedding. These are the
defaults of the Trainer and its collator, and transformers' example script for tagging does the
same. Rounds are interleaved, and each gives a ratio of training seconds, without loading,
tokenising and saving. The dev accuracy of both is given beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from xtremely.engine.hub.locate import locate
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.training.dataset import IGNORED, DevSet, Feature, TrainSet
from xtremely.engine.training.hyperparameters import TrainerSettings
from xtremely.engine.training.multitask_model import HeadPlan
from xtremely.engine.training.trainer import choose_device, choose_precision, fit
from xtremely.eval.data.examples import chosen
from xtremely.eval.methods.kinds import training_of
from xtremely.eval.tasks.task import find_task
from xtremely.eval.tasks.xtreme.udpos import LABELS

LENGTH = 128
RATE = 1e-4
BATCH = 32
METHOD = training_of(find_task("udpos"))


def train_here(
    folder: Path, train: list[Feature], dev: list[Feature], epochs: float, seed: int, device: str
) -> tuple[float, float]:
    """Seconds of training and dev accuracy, with the defaults of ``xtremely train``."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    plan = HeadPlan("udpos", METHOD.head, LABELS)
    dev_set = DevSet("udpos", dev, lambda predictions: accuracy(dev, predictions))
    hyperparameters = replace(METHOD.published, epochs=epochs, learning_rate=RATE, batch_size=BATCH)
    settings = TrainerSettings(
        seed=seed, freeze=True, prune=True, precision="auto", device=device, save_steps=10**9
    )
    with tempfile.TemporaryDirectory() as work:
        train_sets = [TrainSet("udpos", train)]
        found = fit(
            folder,
            tokenizer,
            [plan],
            train_sets,
            [dev_set],
            hyperparameters,
            settings,
            Path(work),
            quiet=True,
        )
    return found.seconds, found.scores["udpos"]


def train_with_trainer(
    folder: Path, train: list[Feature], dev: list[Feature], epochs: float, seed: int, device: str
) -> tuple[float, float]:
    """Seconds of training and dev accuracy, with the defaults of the Trainer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    transformers.set_seed(seed)
    labels = dict(enumerate(LABELS))
    model = transformers.AutoModelForTokenClassification.from_pretrained(
        folder, id2label=labels, label2id={label: n for n, label in labels.items()}
    )
    collator = transformers.DataCollatorForTokenClassification(tokenizer)
    with tempfile.TemporaryDirectory() as work:
        settings = transformers.TrainingArguments(
            output_dir=work,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=2 * BATCH,
            learning_rate=RATE,
            seed=seed,
            bf16=choose_precision("auto", device) == "bf16",
            use_cpu=device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=device == "cuda",
        )
        trainer = transformers.Trainer(model, settings, collator, _rows(train))
        trainer.remove_callback(transformers.PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        logits = trainer.predict(_rows(dev)).predictions
    found = [row[: one.length].argmax(-1) for row, one in zip(logits, dev, strict=True)]
    return seconds, accuracy(dev, found)


def accuracy(features: Sequence[Feature], predictions: Sequence[np.ndarray]) -> float:
    """Percentage of words with the right tag."""
    pairs = list(zip(features, predictions, strict=True))
    right = sum(int((found[: one.length] == one.target).sum()) for one, found in pairs)
    return 100 * right / sum(int((one.target != IGNORED).sum()) for one in features)


def _rows(features: Sequence[Feature]) -> list[dict[str, Any]]:
    return [
        {
            "input_ids": feature.ids[0].tolist(),
            "attention_mask": [1] * feature.length,
            "labels": feature.target.tolist(),
        }
        for feature in features
    ]


def main(arguments: list[str] | None = None) -> None:
    """Print one line per round, and the ratios' median and range."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.training")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--model", default="e5-small-4bit")
    parser.add_argument("--language", default="en")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--dev", type=int, default=500)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device, folder, task = choose_device(given.device), locate(given.model), find_task("udpos")
    tokenizer = Tokenizer(folder, LENGTH)

    def features(split: str, count: int) -> list[Feature]:
        examples = task.read(given.data_root, given.language, split)
        rows = np.random.default_rng(1).permutation(len(examples))[:count]
        return METHOD.features(tokenizer, task, chosen(examples, rows.tolist()), LENGTH)

    train, dev = features("train", given.sentences), features("dev", given.dev)
    print(f"{len(train)} sequences x {given.epochs:g} epochs, {device}")
    ratios = []
    for number in range(given.rounds):
        contenders = {"xtremely": train_here, "transformers Trainer": train_with_trainer}
        names = sorted(contenders, reverse=number % 2 == 0)  # in turn, each begins a round
        found = {
            name: contenders[name](folder, train, dev, given.epochs, number + 1, device)
            for name in names
        }
        (seconds, score), (trainer_seconds, trainer_score) = (found[name] for name in contenders)
        ratios.append(trainer_seconds / seconds)
        print(
            f"round {number + 1}: xtremely {seconds:.1f} s, accuracy {score:.2f};"
            f" transformers Trainer {trainer_seconds:.1f} s, accuracy {trainer_score:.2f};"
            f" {ratios[-1]:.2f} times as fast",
            flush=True,
        )
    print(f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
