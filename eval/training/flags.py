"""Recipes from the command line: a file, flags, or a file with flags that override it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xtremely.eval.training.recipe import Recipe, read_recipe, recipe_from, settled_recipe
from xtremely.kernels.guard import UsageError

FORM = "TASK:LANGUAGES[:EXAMPLES[:SPLIT]], e.g. udpos:en,zh:2000 or xnli:zh:all:dev"


def recipe_of(
    path: Path | None, specs: Sequence[str], whole: Mapping[str, Any], each: Mapping[str, Any]
) -> Recipe:
    """The recipe that a command describes.

    Args:
        path: a recipe's file, or None.
        specs: phases in order, each of one source or several joined by "+", see ``FORM``. The
            last one is the target phase, those before it are intermediate.
        whole: the given settings of the recipe.
        each: the given settings that apply to every phase.

    Raises:
        UsageError: neither a file nor a phase, or both; a malformed spec; a name that does not
            exist, or a number out of range.
    """
    if (path is None) == (not specs):
        raise UsageError(f"give a recipe's file, or --phase {FORM}")
    if path is not None:
        recipe = read_recipe(path)
        phases = tuple(replace(phase, **each) for phase in recipe.phases)
        return settled_recipe(replace(recipe, **whole, phases=phases), "with the options given")
    last = len(specs) - 1
    described = [_phase(spec, place == last, each) for place, spec in enumerate(specs)]
    return recipe_from({**whole, "phase": described}, "--phase")


def _phase(spec: str, last: bool, each: Mapping[str, Any]) -> dict[str, Any]:
    sources = [_source(part) for part in spec.split("+")]
    masked = all(source["task"] == "mlm" for source in sources)
    kind = "mlm" if masked else "target" if last else "intermediate"
    return {"kind": kind, "source": sources, **each}


def _source(text: str) -> dict[str, Any]:
    task, *rest = text.strip().split(":")
    if not 1 <= len(rest) <= 3:
        raise UsageError(f"--phase {text!r} has another form than {FORM}")
    languages, examples, split = [*rest, *("all", "train")[len(rest) - 1 :]]
    if examples != "all" and not re.fullmatch(r"[0-9]{1,18}", examples):
        raise UsageError(f"--phase {text!r}: {examples!r} is no number of examples; form: {FORM}")
    source = {
        "task": task,
        "languages": [code.strip() for code in languages.split(",")],
        "split": split,
    }
    return source if examples == "all" else {**source, "examples": int(examples)}
