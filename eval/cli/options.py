"""Options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xtremely.kernels.guard import UsageError

MODEL = (
    "the name of a packaged model (see 'xtremely models'), a folder in Hugging Face's format, or a"
    " model's name on the Hugging Face hub"
)
PRECISIONS = "fp32, fp16, bf16, fp8 (BERT family only) or int8 (CPU only)"

Model = Annotated[str, typer.Option(help=f"The model to run: {MODEL}.")]
Backend = Annotated[
    str,
    typer.Option(
        help="What runs the encoder: auto (the fastest that fits), torch, triton (GPU), native"
        " (C++ on x86-64 or aarch64), onnx, or onnx:PROVIDER with cpu, cuda, tensorrt or openvino"
        " as PROVIDER. A backend other than auto is used or refused, never replaced."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto (a GPU if there is one), cpu, cuda, or cuda:N for the GPU of"
        " that number."
    ),
]
Devices = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto (a GPU if there is one), cpu, cuda, or cuda:N for the GPU of"
        " that number; several GPUs separated by commas, e.g. cuda:0,cuda:1, or all GPUs: all."
    ),
]
TrainingDevice = Annotated[
    str, typer.Option(help="Where to compute: auto (a GPU if there is one), cpu or cuda.")
]
Precision = Annotated[str, typer.Option(help=f"Number format to compute in: {PRECISIONS}.")]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read a model's pickled weights (pytorch_model.bin) if it has no other ones. torch"
        " reads them without running code, and they are kept as safetensors in the cache.",
    ),
]
Layer = Annotated[
    int | None,
    typer.Option(
        help="Hidden layer that embeddings are taken from, 0 being the word embeddings (default:"
        " the last layer)."
    ),
]
Pooling = Annotated[
    str | None,
    typer.Option(
        help="How token vectors become one sentence vector: mean (their average), cls (the first"
        " token's), or model (default): the model's own pooling and all modules after it."
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="Text to put before every sentence, e.g. 'query: ' (default: the model's own prompt)."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder with benchmark data ('xtremely tasks' lists the files it may hold), or hub: to"
        " take each task from its repository on the Hugging Face hub, or hub:OWNER/NAME to take"
        " them from that one."
    ),
]
BenchmarkName = Annotated[
    str,
    typer.Option(
        help="The benchmark that says which tasks, languages and groups count: xtreme or xtreme-r."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Spread the work over Ray: 'local' (start it here), 'auto' (the cluster this machine"
        " is part of), or a cluster's address. All machines must see the same files."
    ),
]

MAY_BE_EMPTY = ("--prompt",)


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse an empty value, which as a path would be the current folder, and a NUL character,
    which no path can hold.

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


def split_names(text: str | None, option: str) -> list[str] | None:
    """The names in an option's value, each once; None if the option was not given."""
    if text is None:
        return None
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise UsageError(f"{option} names nothing; leave it out, or separate names by commas")
    return names


def check_root(data_root: Path | None) -> None:
    """Raise UsageError unless --data-root is a folder or the hub."""
    from xtremely.eval.data.hub import is_hub

    if data_root is not None and not is_hub(data_root) and not data_root.is_dir():
        raise UsageError(f"--data-root {data_root}: there is no such folder")
