"""Fixtures of the kernels' tests."""

from pathlib import Path

import apart
import pytest
import torch

BEYOND = 1 << 14  # values kept behind every new tensor: more than a tile that overran would reach


def pytest_runtest_protocol(item, nextitem):
    """A kernel that ends its process fails its own test and no other."""
    return apart.protocol(item, nextitem, Path(__file__).parent)


@pytest.fixture(autouse=True)
def watched_memory(monkeypatch):
    """Fresh memory is NaN, so that a value nobody wrote cannot pass for a result; behind it lies
    more that must stay as it is.
    """
    empty, beyond = torch.empty, []

    def watched(*shape, **options):
        shape = torch.Size(shape if shape and isinstance(shape[0], int) else (shape or ((),))[0])
        memory = empty(shape.numel() + BEYOND, **options)
        if memory.is_floating_point():
            memory.fill_(float("nan"))
        tail = memory[shape.numel() :].fill_(77)
        beyond.append((tail, tail.clone()))
        return memory[: shape.numel()].view(shape)

    monkeypatch.setattr(torch, "empty", watched)
    yield
    for tail, before in beyond:
        assert torch.equal(tail.view(torch.uint8), before.view(torch.uint8)), "written past the end"
