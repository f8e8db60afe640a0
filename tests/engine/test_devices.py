"""Names of devices: one, several, all."""

import pytest
import torch

from xtremely.engine.devices import usable_device, usable_devices
from xtremely.kernels.guard import UsageError


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that CUDA shows so many GPUs."""

    def gpus(count):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return gpus


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("cpu", ["cpu"]),
        ("auto", ["cuda"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:1,cuda:0", ["cuda:1", "cuda:0"]),
        ("cuda, cuda:2", ["cuda", "cuda:2"]),
        ("all", ["cuda:0", "cuda:1", "cuda:2"]),
    ],
)
def test_devices_are_named_one_by_one_or_all_together(gpus, names, expected):
    gpus(3)
    assert [*map(str, usable_devices(names))] == expected


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ("gpu", "device 'gpu' is not known; legal: auto, cpu, cuda, cuda:N"),
        ("cuda:0,,cuda:1", "device '' is not known; legal"),
        ("cuda:-1", "device 'cuda:-1' is not known"),
        ("cuda:0,all", "device 'all' is not known"),
        ("cuda:0,cuda:3", "device 'cuda:3' was asked for, but this machine has no such usable GPU"),
        ("cuda:0,cuda:0", "device 'cuda:0' is named twice in 'cuda:0,cuda:0'; .* --workers"),
        ("cuda,cuda:0", "device 'cuda' is named twice in 'cuda,cuda:0'"),
        ("cuda:01,cuda:1", "device 'cuda:1' is named twice"),
        ("auto,cuda", "device 'cuda' is named twice"),
        ("cpu,cpu", "device 'cpu' is named twice in 'cpu,cpu'; .* --workers for several processes"),
        ("cpu,cuda:0", "devices 'cpu,cuda:0' are of two kinds"),
    ],
)
def test_devices_that_cannot_be_used_together_are_refused(gpus, names, complaint):
    gpus(3)
    with pytest.raises(UsageError, match=complaint):
        usable_devices(names)


def test_all_of_no_gpus_is_refused(gpus):
    gpus(0)
    with pytest.raises(UsageError, match="'all' was asked for, .* no usable GPU; legal here: auto"):
        usable_devices("all")
    assert usable_device("auto").type == "cpu"
