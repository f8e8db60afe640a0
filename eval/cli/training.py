"""The command line's ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xtremely.kernels.guard import UsageError, require_number


def train(
    out: Annotated[
        Path, typer.Option(help="Folder for the phases' models; a run started again goes on.")
    ],
    data_root: Annotated[Path, typer.Option(help="Folder with training data.")],
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe in TOML (see README); else --phase.")
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(
            help="TASK:LANGUAGES[:EXAMPLES[:SPLIT]], several sources joined by '+'; once for each"
            " phase, the target last. E.g. --phase snli:en --phase udpos:en,zh:2000"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What to start from (default: e5-small-4bit).")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Of every phase.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Instead of epochs.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of every phase.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Of every phase.")] = None,
    accumulation: Annotated[int | None, typer.Option(help="Batches a step.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Looks at the dev set without a better score; then stop.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything.")] = None,
    freeze_embeddings: Annotated[
        bool | None, typer.Option(help="Leave the word embeddings as they are (default).")
    ] = None,
    prune_vocabulary: Annotated[
        bool | None, typer.Option(help="Hold only the pieces that occur (default).")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    save_steps: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
) -> None:
    """Train a model in phases; leaves a Hugging Face folder for each."""
    from xtremely.eval.training.flags import recipe_of
    from xtremely.eval.training.phases import MAX_SAVE_STEPS, summary
    from xtremely.eval.training.phases import train as run

    if model is not None and not model.strip():
        raise UsageError("--model is empty; name a packaged model, a folder, or a hub's")
    require_number("--save-steps", save_steps, 1, MAX_SAVE_STEPS)
    if not data_root.is_dir():
        raise UsageError(f"--data-root {data_root}: there is no such folder")
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
    for done in run(wanted, data_root, out, device=device, quiet=quiet, save_steps=save_steps):
        if not quiet:
            typer.echo(summary(done))


def _given(options: dict) -> dict:
    return {name: value for name, value in options.items() if value is not None}
