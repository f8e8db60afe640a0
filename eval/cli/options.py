"""Options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xtremely.kernels.guard import UsageError

Model = Annotated[
    str, typer.Option(help="A packaged model (see 'models'), a Hugging Face folder, or a hub name.")
]
Backend = Annotated[
    str,
    typer.Option(
        help="auto, torch, triton, native, onnx, or onnx:PROVIDER (cpu, cuda, tensorrt,"
        " openvino); a backend named never degrades."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    str, typer.Option(help="fp32, fp16, bf16, (BERT family) fp8, or (on a CPU) int8.")
]
Layer = Annotated[int | None, typer.Option(help="Hidden layer (default: the last).")]
Pooling = Annotated[
    str | None, typer.Option(help="mean or cls (default: the profile's or the model's own).")
]
Prompt = Annotated[
    str | None,
    typer.Option(help="Text before every sentence (default: the model's own, e.g. 'query: ')."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with benchmark data (see 'tasks'), or hub:google/xtreme."),
]

MAY_BE_EMPTY = ("--prompt",)


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what no option takes: an empty text, which as a path would be the current folder, and
    a character that no path can hold.

    Raises:
        UsageError: with the option's name.
    """
    before = ""
    for number, argument in enumerate(arguments, start=1):
        if argument == "--":
            return
        option, joined, value = argument.partition("=")
        if not (joined and option.startswith("--")):
            option, value = before, argument
        what = option or f"argument {number}"
        if not value and what not in MAY_BE_EMPTY:
            raise UsageError(f"{what} is empty; give it a value, or leave it out")
        if "\0" in value:
            raise UsageError(f"{what} holds a NUL character; no path has one")
        before = argument if argument.startswith("-") and not joined else ""
