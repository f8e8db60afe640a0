"""Kernels that are called outside of an encoder, on the GPU that holds their arguments."""

from contextlib import contextmanager

import pytest
import torch

from xtremely.kernels.configurations import architecture
from xtremely.kernels.spec import all_kernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["span", "topk", "rescore"])
def test_a_kernel_is_launched_while_its_arguments_gpu_is_the_current_one(name, monkeypatch):
    """Triton launches on the current GPU, which is not the one of a model on --device cuda:1."""
    kernel, entered, launched = all_kernels()[name], [], []

    @contextmanager
    def device_of(tensor):
        entered.append(tensor.device.type)
        yield
        entered.pop()

    inputs = kernel.make_inputs(torch.float32, DEVICE, **kernel.cases[-1])
    jit = kernel.launches(architecture(DEVICE))[0].function
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(
        type(jit), "__getitem__", lambda *_: lambda *_, **__: launched.append([*entered])
    )
    kernel.run(**inputs)
    assert launched == [[DEVICE.type]]
