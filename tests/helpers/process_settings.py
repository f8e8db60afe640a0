"""Process-wide settings that a test may change, but must not leave changed for the next one."""

from __future__ import annotations

import locale
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

# Variables that this project, or what it computes with, reads; libraries keep others.
WATCHED = (
    "COLUMNS", "CUDA_", "CXX", "HF_", "HOME", "LANG", "LC_", "LOCAL_RANK", "MKL_", "OMP_",
    "OPENBLAS_", "PATH", "PYTHON", "RANK", "RAYON_", "TERM", "TMPDIR", "TRITON_", "WORLD_SIZE",
    "XDG_", "XTREMELY_",
)  # fmt: skip


class Setting(NamedTuple):
    """A setting of the process: how it is read and how it is put back."""

    read: Callable[[], Any]
    put_back: Callable[[Any], Any]


def _signal(number: signal.Signals) -> Setting:
    return Setting(lambda: signal.getsignal(number), lambda old: signal.signal(number, old))


def _limit(kind: int) -> Setting:
    return Setting(lambda: resource.getrlimit(kind), lambda old: resource.setrlimit(kind, old))


def _attribute(owner: Any, name: str) -> Setting:
    return Setting(lambda: getattr(owner, name), lambda old: setattr(owner, name, old))


def _umask() -> int:
    before = os.umask(0o22)
    os.umask(before)
    return before


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith(WATCHED)}


def _put_back_environment(before: dict[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _path() -> list[str]:
    """The search path without onnxruntime and setuptools, which add to it at import."""
    added = ("onnxruntime", "setuptools")
    return [one for one in sys.path if not any(name in one for name in added)]


def _put_back_path(before: list[str]) -> None:
    sys.path[:] = before


SETTINGS = {
    "torch's threads": Setting(torch.get_num_threads, torch.set_num_threads),
    "torch's default type": Setting(torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": Setting(torch.get_default_device, torch.set_default_device),
    "torch's gradients": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's deterministic algorithms": Setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "torch's precision of products": Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "oneDNN": Setting(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    "cuDNN's determinism": _attribute(torch.backends.cudnn, "deterministic"),
    "cuDNN's benchmark": _attribute(torch.backends.cudnn, "benchmark"),
    "numpy's errors": Setting(np.geterr, lambda old: np.seterr(**old)),
    "numpy's printing": Setting(np.get_printoptions, lambda old: np.set_printoptions(**old)),
    "environment": Setting(_environment, _put_back_environment),
    "current folder": Setting(os.getcwd, os.chdir),
    "mask of new files": Setting(_umask, os.umask),
    "search path": Setting(_path, _put_back_path),
    "recursion limit": Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "digits of integers": Setting(sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    "locale": Setting(
        lambda: locale.setlocale(locale.LC_ALL), lambda old: locale.setlocale(locale.LC_ALL, old)
    ),
    "level of logging": _attribute(logging.root, "level"),
    "logging switched off": _attribute(logging.root.manager, "disable"),
    "interrupt": _signal(signal.SIGINT),
    "termination": _signal(signal.SIGTERM),
    "alarm": _signal(signal.SIGALRM),
    "largest file": _limit(resource.RLIMIT_FSIZE),
    "most memory": _limit(resource.RLIMIT_AS),
    "open files": _limit(resource.RLIMIT_NOFILE),
}  # fmt: skip


def snapshot() -> dict[str, Any]:
    """All settings as they are."""
    return {name: setting.read() for name, setting in SETTINGS.items()}


def put_back(before: dict[str, Any]) -> list[str]:
    """Undo every change since a snapshot; gives what was changed, for people."""
    changed = []
    for name, setting in SETTINGS.items():
        now = setting.read()
        if now != before[name]:
            setting.put_back(before[name])
            changed.append(f"{name}: {_difference(before[name], now)}")
    return changed


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict):
        keys = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        return ", ".join(f"{k} {before.get(k)!r} -> {now.get(k)!r}" for k in keys)
    return f"{before!r} -> {now!r}"
