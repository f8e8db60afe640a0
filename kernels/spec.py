"""What a kernel declares, and how the kernels are found.

A kernel is one frozen value, ``KERNEL``, at the end of its module. Conformance tests, compile
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
    """A jit function with fixed compile-time settings, as it ships.

    Attributes:
        name: unique among the kernel's; that of its shape class unless ``shape`` is given.
        function: the ``triton.jit`` function.
        signature: type of every run-time argument, by name.
        constants: values of the compile-time arguments that are not in ``config``.
        config: the settings chosen for the architecture.
        shape: the shape class, where several launches share one.
    """

    name: str
    function: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    config: Config
    shape: str | None = None


@dataclass(frozen=True)
class Tuning:
    """A shape class, inputs that stand for it, and the settings to try.

    Attributes:
        shape: the class, as in ``launches``.
        precision: of the inputs.
        case: arguments of ``make_inputs``.
        candidates: what to measure, the default among them.
    """

    shape: str
    precision: torch.dtype
    case: Inputs
    candidates: tuple[Config, ...]


def plain_values(out: Any, **_: Any) -> Tensor:
    """A kernel's output is itself what the law of exactness judges."""
    return out


@dataclass(frozen=True)
class Kernel:
    """A kernel and its torch reference.

    Attributes:
        name: the module's and the public function's.
        run: the public function.
        ref: its torch reference, same signature.
        cases: what conformance tests run, each the arguments of ``make_inputs``.
        make_inputs: (precision, device, **case) -> arguments of ``run``.
        cost: arguments of ``run`` -> floating-point operations and bytes that must be moved.
        launches: architecture -> every shipped configuration, for compile checks.
        tunings: what ``xtremely kernels tune`` measures.
        values: (output, **inputs) -> the numbers that the law of exactness judges; for an output
            of indices, say, the scores at those indices.
        precisions: those it takes.
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
    """Every kernel of the folder, by name."""
    found: dict[str, Kernel] = {}
    for module in pkgutil.iter_modules(xtremely.kernels.__path__):
        if module.name.startswith("_"):
            continue
        kernel = getattr(importlib.import_module(f"xtremely.kernels.{module.name}"), "KERNEL", None)
        if kernel is not None:
            require(kernel.name not in found, f"two modules declare the kernel {kernel.name!r}")
            found[kernel.name] = kernel
    return found
