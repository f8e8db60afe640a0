"""Chooses the compile-time settings of a kernel: tuned ones if there are any, else its default.

Every kernel names its shape classes (``short 64 bf16``) and gives each a default. ``tuned.json``
beside this file holds the results of ``xtremely kernels tune``, by kernel, architecture and class.
A class never depends on the number of sequences or rows, so a sequence's result has the same bits
in every batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

TABLE = Path(__file__).parent / "tuned.json"
INTERPRETER = "interpreter"


@dataclass(frozen=True)
class Config:
    """Compile-time settings of a launch.

    Attributes:
        constants: compile-time arguments of the jit function, such as tile sizes, by name.
        warps: warps per program.
        stages: stages of the software pipeline.
    """

    constants: dict[str, Any]
    warps: int
    stages: int = 1


_forced: dict[tuple[str, str], Config] = {}


def choose(kernel: str, shape: str, architecture: str, default: Config) -> Config:
    """The settings of a kernel's shape class on an architecture."""
    if (kernel, shape) in _forced:
        return _forced[kernel, shape]
    found = read_table().get(kernel, {}).get(architecture, {}).get(shape)
    return Config(found["constants"], found["warps"], found["stages"]) if found else default


@contextmanager
def forced(kernel: str, shape: str, config: Config) -> Iterator[None]:
    """Run a shape class with these settings inside the block; used to measure them."""
    _forced[kernel, shape] = config
    try:
        yield
    finally:
        del _forced[kernel, shape]


@cache
def architecture(device: torch.device) -> str:
    """Name of a device's architecture (``sm_90``, ``gfx942``); ``interpreter`` without a GPU."""
    if device.type != "cuda":
        return INTERPRETER
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return str(properties.gcnArchName).split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def is_tuned(kernel: str, architecture: str) -> bool:
    """Whether the kernel has been measured on the architecture."""
    return architecture in read_table().get(kernel, {})


@cache
def read_table() -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Kernel -> architecture -> shape class -> settings, with device and date of measurement."""
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
