"""Examples, settings and a run of training on tiny models."""

from dataclasses import fields, replace

import numpy as np

from xtremely.engine.training import multitask_model as models
from xtremely.engine.training.dataset import IGNORED, Feature, TrainSet
from xtremely.engine.training.hyperparameters import Hyperparameters, TrainerSettings
from xtremely.engine.training.multitask_model import HeadPlan
from xtremely.engine.training.trainer import fit
from xtremely.eval.training.recipe import Phase, Recipe, Source

TAGS = ("A", "B", "C")
HYPERPARAMETERS = Hyperparameters(
    epochs=2.0, learning_rate=1e-3, batch_size=4, warmup=0.1, weight_decay=0.0, evaluate_steps=2
)
SETTINGS = TrainerSettings(
    seed=3, freeze=True, prune=True, precision="fp32", device="cpu", save_steps=1000
)
CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def feature(length, target, top=60, seed=0):
    rng = np.random.default_rng((seed, length))
    ids = np.concatenate([[0], rng.integers(4, top, length - 2), [2]]).astype(np.int32)
    return Feature((ids,), (np.zeros(length, dtype=np.uint8),), target)


def tagged(count=14, top=60):
    made = []
    for n in range(count):
        length = 4 + n % 7
        target = np.full(length, IGNORED)
        target[1:-1] = np.arange(length - 2) % 3
        made.append(feature(length, target, top, seed=n))
    return made


def changed(**changes):
    """Hyperparameters and settings with other values than the usual ones."""
    names = {one.name for one in fields(SETTINGS)}
    settings = {name: changes.pop(name) for name in names & changes.keys()}
    return replace(HYPERPARAMETERS, **changes), replace(SETTINGS, **settings)


def run(folder, tokenizer, work, plans=None, train_sets=None, dev_sets=(), **changes):
    """Train a tagger, or what is asked for."""
    plans = plans or [HeadPlan("tags", "token classification", TAGS)]
    train_sets = train_sets or [TrainSet("tags", tagged())]
    both = changed(**changes)
    return plans, fit(folder, tokenizer, plans, train_sets, dev_sets, *both, work, quiet=True)


def run_and_save(folder, tokenizer, tmp_path, name="a", **changes):
    """``run``, its model saved; gives the fit and the folder."""
    plans, fitted = run(folder, tokenizer, tmp_path / f"work-{name}", **changes)
    models.save(fitted.multitask_model, plans[0].name, folder, tokenizer, tmp_path / name)
    return fitted, tmp_path / name


def two_phases(root, *codes, **changes):
    """An intermediate phase and a target."""
    nli = Phase(
        "1-xnli",
        "intermediate",
        (Source("xnli", codes or ("de",), split="dev"),),
        **{"epochs": 1.0, "batch_size": 4, "learning_rate": 0.01, **changes},
    )
    pos = Phase("2-udpos", "target", (Source("udpos", ("en",), 8),), epochs=1.0, batch_size=4)
    return Recipe(str(root / "models" / "tiny"), (nli, pos))
