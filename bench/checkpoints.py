"""Train checkpoints for benchmarks: one for each task that needs a head, in minutes on a CPU.

    python -m xtremely.bench.checkpoints --data-root DATA --out FOLDER [--only udpos]

Each is trained by the code of ``xtremely train`` from the packaged model, on a few thousand English
examples. They serve to measure an engine and are not good models.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from xtremely.eval.training.phases import train
from xtremely.eval.training.recipe import Phase, Recipe, Source

MODEL = "e5-small-4bit"
# Checkpoint -> its training data and number of epochs.
PLANS = {
    "udpos": (Source("udpos", ("en",), 6000), 2),
    "panx": (Source("panx", ("en",), 4000), 2),
    "xnli": (Source("snli", ("en",), 8000, split="dev"), 1),
    "pawsx": (Source("pawsx", ("en",), 2000, split="dev"), 1),
    "squad": (Source("squad", ("en",), 1500), 1),
    "tydiqa": (Source("tydiqa", ("en",), 1000), 1),
}


def main(arguments: list[str] | None = None) -> None:
    """Train the missing checkpoints."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.checkpoints")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=PLANS, action="append")
    given = parser.parse_args(arguments)
    for name in given.only or PLANS:
        source, epochs = PLANS[name]
        phase = Phase(name, "target", (source,), epochs=epochs, learning_rate=1e-4, warmup=50)
        train(Recipe(MODEL, (phase,)), given.data_root, given.out)


if __name__ == "__main__":
    main()
