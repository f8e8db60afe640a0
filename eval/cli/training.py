"""The command line's ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xtremely.eval.cli.options import MODEL, AllowPickle, Quiet, TrainingDevice, check_root
from xtremely.kernels.guard import UsageError, require_number


def train(
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the trained models, one folder for each phase. An interrupted run"
            " continues when it is started again with the same folder."
        ),
    ],
    data_root: Annotated[
        Path,
        typer.Option(
            help="Folder with training data, laid out like benchmark data, or hub: to take each"
            " task from its repository on the Hugging Face hub."
        ),
    ],
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="TOML file that describes the training (see docs/train.md); without it, --phase"
            " describes it."
        ),
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(
            help="What a phase trains on: TASK:LANGUAGES, then perhaps :EXAMPLES (number per"
            " language, or all) and :SPLIT. Several sources are joined by '+'. Given once for each"
            " phase, the target task last, e.g. --phase snli:en --phase udpos:en,zh:2000."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help=f"The model to train: {MODEL} (default: e5-small-4bit)."),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over the examples in every phase, fractions allowed (default: XTREME's,"
            " 1 to 10 by task)."
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(help="Optimiser steps in every phase, instead of --epochs (default: none)."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate of every phase, from which it falls linearly to 0 (default:"
            " XTREME's, 2e-5, or 3e-5 for question answering)."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Sequences in a batch, in every phase (default: 32)."),
    ] = None,
    accumulation: Annotated[
        int | None,
        typer.Option(help="Batches whose gradients are added up for one step (default: 1)."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Evaluations on the dev set without a better score after which a phase stops"
            " (default: train to the end)."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Random seed for sampling, order of examples, initialisation and dropout"
            " (default: 1)."
        ),
    ] = None,
    freeze_embeddings: Annotated[
        bool | None,
        typer.Option(help="Keep the word embeddings fixed while training (default: yes)."),
    ] = None,
    prune_vocabulary: Annotated[
        bool | None,
        typer.Option(
            help="Keep only word pieces of the training data in memory; the saved model has all of"
            " them (default: yes)."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Number format to train in: fp32, bf16, fp16 or auto (bf16 on a GPU that has it"
            " and on a CPU with AMX, else fp32) (default: auto)."
        ),
    ] = None,
    device: TrainingDevice = "auto",
    save_steps: Annotated[
        int, typer.Option(help="Optimiser steps between two checkpoints to continue from.")
    ] = 200,
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on one task after another, in any language."""
    from xtremely.eval.training.flags import recipe_of
    from xtremely.eval.training.phases import MAX_SAVE_STEPS, summary
    from xtremely.eval.training.phases import train as run

    if model is not None and not model.strip():
        raise UsageError("--model is empty; name a packaged model, a folder, or a hub's")
    require_number("--save-steps", save_steps, 1, MAX_SAVE_STEPS)
    check_root(data_root)
    whole = {
        "model": model or (None if recipe else "e5-small-4bit"),
        "seed": seed,
        "freeze_embeddings": freeze_embeddings,
        "prune_vocabulary": prune_vocabulary,
        "precision": precision,
    }
    each = {
        "epochs": epochs,
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "patience": patience,
    }
    wanted = recipe_of(recipe, phase or [], _given(whole), _given(each))
    for done in run(
        wanted,
        data_root,
        out,
        device=device,
        quiet=quiet,
        save_steps=save_steps,
        allow_pickle=allow_pickle,
    ):
        if not quiet:
            typer.echo(summary(done))


def _given(options: dict) -> dict:
    return {name: value for name, value in options.items() if value is not None}
