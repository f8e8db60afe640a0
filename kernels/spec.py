"""``Kernel``: what a kernel's module declares, and the discovery of all kernels.

Each kernel is one frozen value, ``KERNEL``, at the end of its module. Conformance tests, compile
checks and benchmarks loop over all of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import xtremely.kernels
from xtremely.kernels.configurations import Config
from xtremely.kernels.guard import require

Inputs = dict[str, Any]

# Triton's names of the precisions.
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Launch:
    """A jit function with the compile-time settings with which it ships.

    Attributes:
        name: unique within the kernel; the name of its shape class unless ``shape`` is given.
        function: the ``triton.jit`` function.
        signature: run-time argument -> its type.
        constants: compile-time arguments that are not in ``config`` -> value.
        config: the settings chosen for the architecture.
        shape: the shape class, where several launches belong to one.
    """

    name: str
    function: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    config: Config
    shape: str | None = None


@dataclass(frozen=True)
class Tuning:
    """A shape class, representative inputs, and the settings to measure.

    Attributes:
        shape: the class, as in ``launches``.
        precision: dtype of the inputs.
        case: arguments of ``make_inputs``.
        candidates: settings to measure, the default first.
    """

    shape: str
    precision: torch.dtype
    case: Inputs
    candidates: tuple[Config, ...]


def plain_values(out: Any, **_: Any) -> Tensor:
    """The output itself, for kernels whose output is compared directly."""
    return out


@dataclass(frozen=True)
class Kernel:
    """A kernel and its torch reference.

    Attributes:
        name: name of the module and of the public function.
        run: the public function.
        ref: its torch reference, with the same signature.
        cases: cases of the conformance tests, each the arguments of ``make_inputs``.
        make_inputs: (precision, device, **case) -> arguments of ``run``.
        cost: arguments of ``run`` -> floating-point operations, and bytes that must be moved.
        launches: architecture -> all shipped configurations, for compile checks.
        tunings: what ``xtremely kernels tune`` measures.
        values: (output, **inputs) -> the numbers whose error is judged (see ``numerics``). For an
            output of indices, for example, these are the scores at the indices.
        precisions: dtypes that it supports.
    """

    name: str
    run: Callable[..., Any]
    ref: Callable[..., Any]
    cases: tuple[Inputs, ...]
    make_inputs: Callable[..., Inputs]
    cost: Callable[..., tuple[float, float]]
    launches: Callable[[str], list[Launch]]
    tunings: Callable[[], list[Tuning]]
    values: Callable[..., Tensor] = plain_values
    precisions: tuple[torch.dtype, ...] = tuple(TYPES)


def all_kernels() -> dict[str, Kernel]:
    """All kernels in this folder: name -> kernel."""
    found: dict[str, Kernel] = {}
    for module in pkgutil.iter_modules(xtremely.kernels.__path__):
        if module.name.startswith("_"):
            continue
        kernel = getattr(importlib.import_module(f"xtremely.kernels.{module.name}"), "KERNEL", None)
        if kernel is not None:
            require(kernel.name not in found, f"two modules declare the kernel {kernel.name!r}")
            found[kernel.name] = kernel
    return found
