"""The devices of this machine, by the names that users give them."""

from __future__ import annotations

import re

import torch

from xtremely.kernels.guard import UsageError

ALL = "all"


def usable_device(name: str) -> torch.device:
    """A device by its name; UsageError unless this machine has it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"device {name!r} is not known; legal: auto, cpu, cuda, cuda:N")
    kind, _, number = name.partition(":")
    device = torch.device(kind, int(number)) if number else torch.device(kind)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} was asked for, but this machine has no such usable GPU")
    return device


def usable_devices(names: str) -> list[torch.device]:
    """The devices of a list such as ``cuda:0,cuda:1``; ``all`` stands for all usable GPUs.

    ``CUDA_VISIBLE_DEVICES`` hides GPUs and renumbers the others, as everywhere in CUDA.

    Raises:
        UsageError: this machine lacks one of them, or one is named twice, or they are of two kinds,
            whose results would differ in their last bits.
    """
    if names.strip() == ALL:
        found = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
        if not found:
            raise UsageError(
                "device 'all' was asked for, but this machine has no usable GPU; legal here: auto"
                " and cpu, with --workers for several processes"
            )
        return found
    found = [usable_device(name.strip()) for name in names.split(",")]
    places = [(device.type, device.index or 0) for device in found]
    for device, place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(
                f"device {str(device)!r} is named twice in {names!r}; name each once, and take"
                " --workers for several processes on each"
            )
    if len({device.type for device in found}) > 1:
        raise UsageError(
            f"devices {names!r} are of two kinds, whose results differ in their last bits; name"
            " GPUs alone, or cpu"
        )
    return found
