"""Overlaps work on the host with computation on a GPU: asynchronous copies and prefetching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Made = TypeVar("Made")

# Called to process a batch once its results have reached the host.
Finish = Callable[[], None]


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Start to copy a tensor to the host; the returned function waits for the copy, returns it."""
    if tensor.device.type == "cpu":
        return lambda: tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(tensor.device))

    def wait() -> Tensor:
        arrived.synchronize()
        return copy

    return wait


def prepared(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """``make(item)`` for every item, such as tokenising, one item ahead of its use."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        ahead = None
        for item in items:
            ahead, ready = worker.submit(make, item), ahead
            if ready is not None:
                yield ready.result()
        if ahead is not None:
            yield ahead.result()
