"""Records the environment of a training, on which the bits of the weights depend, and compares it.

The order of sums changes with the number of threads, the processor and library versions. So every
checkpoint records them. A run only resumes in the same environment, because otherwise its weights
would differ from those of an uninterrupted run.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from xtremely.engine.training.dropout import BITS
from xtremely.files.documents import read_json
from xtremely.kernels.guard import InputError

MAX_THREADS = 4096
LIBRARIES = ("torch", "transformers", "accelerate", "numpy")
# Environment variables that make libraries use other instructions or another order of sums.
VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
             "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG")  # fmt: skip

Environment = dict[str, int | str]


@dataclass(frozen=True)
class Note:
    """The note in a complete checkpoint.

    Attributes:
        step: optimiser steps taken.
        made_with: the environment; empty in checkpoints of earlier versions.
        files: file name -> SHA-256; likewise.
    """

    step: int
    made_with: Environment = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class OtherEnvironment(InputError):
    """A checkpoint was made in another environment, so training would not go on to the same
    weights.
    """


def environment(device: str, precision: str) -> Environment:
    """The environment of this process: readable name -> value.

    Args:
        device: cpu or cuda.
        precision: fp32, bf16 or fp16.
    """
    found: Environment = {
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "device": device,
        "precision": precision,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(),
        "precision of products": torch.get_float32_matmul_precision(),
        "oneDNN": "on" if torch.backends.mkldnn.enabled else "off",
        "deterministic": "yes" if torch.are_deterministic_algorithms_enabled() else "no",
    }
    if device == "cpu":
        found["dropout"] = f"{BITS} bits a number"
        found["attention"] = "with its gradients"
    if device == "cuda":
        found["GPU"] = torch.cuda.get_device_name()
        found["CUDA"] = torch.version.cuda or torch.version.hip or ""
        found["cuDNN"] = torch.backends.cudnn.version() or 0
        found["TF32"] = "yes" if torch.backends.cuda.matmul.allow_tf32 else "no"
    found |= {name: version(name) for name in LIBRARIES}
    return found | {name: os.environ[name] for name in VARIABLES if name in os.environ}


@contextmanager
def resumed(checkpoint: Path | None, note: str, now: Environment) -> Iterator[Environment]:
    """Use the number of threads of a checkpoint inside the block, and check the environment.

    Args:
        checkpoint: the checkpoint from which a run resumes; None for a new run.
        note: name of the file in a checkpoint that holds its ``Note``.
        now: the environment of this process.

    Yields:
        The environment to write into further checkpoints.

    Raises:
        OtherEnvironment: the checkpoint was made in an environment that differs from this one.
        InputError: its note is damaged.
    """
    kept = dict(now)
    if checkpoint is not None:
        before = read_json(checkpoint / note, Note).made_with
        if not before:
            warnings.warn(
                f"{checkpoint} does not say with how many threads it was made: the last bits of"
                " the weights may differ from those of an undisturbed run",
                stacklevel=4,
            )
        else:
            threads = before.get("threads")
            if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
                raise InputError(
                    f"{checkpoint / note}: threads are {threads!r}; legal: 1 to {MAX_THREADS}. It"
                    f" is damaged: remove {checkpoint.parent} to train this phase from its start"
                )
            kept["threads"] = threads
            _require_alike(checkpoint, before, kept)
    before_all = torch.get_num_threads()
    torch.set_num_threads(int(kept["threads"]))
    try:
        yield kept
    finally:
        torch.set_num_threads(before_all)


def _require_alike(checkpoint: Path, before: Environment, now: Environment) -> None:
    names = [*before, *(name for name in now if name not in before)]
    other = [
        f"{name} {before.get(name, 'unset')}, here {now.get(name, 'unset')}"
        for name in names
        if before.get(name) != now.get(name)
    ]
    if other:
        raise OtherEnvironment(
            f"{checkpoint} was made with {'; '.join(other)}: training would not go on to the same"
            " weights; go on where it was begun, or remove that checkpoint's folder"
            f" {checkpoint.parent} to train this phase from its start"
        )


def _processor() -> str:
    """The processor's name, by which libraries choose instructions and block sizes."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
