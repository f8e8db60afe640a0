"""Work for the next batch is done ahead on a GPU, and only there; nothing is lost on the way."""

import threading

import pytest
import torch

from xtremely.engine.transfer import prepared, to_host


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("items", [[], [3], [3, 1, 2]])
def test_everything_comes_out_in_order(items, device):
    made = prepared(lambda item: item * 10, items, torch.device(device))
    assert list(made) == [item * 10 for item in items]


def test_on_a_gpu_the_next_item_is_made_while_this_one_is_used():
    second = threading.Event()

    def make(item):
        if item == 2:
            second.set()
        return item

    made = prepared(make, [1, 2, 3], torch.device("cuda"))
    assert next(made) == 1
    assert second.wait(timeout=30)


def test_on_a_cpu_nothing_is_made_before_it_is_asked_for():
    seen = []
    made = prepared(seen.append, [1, 2, 3], torch.device("cpu"))
    next(made)
    assert seen == [1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_trouble_comes_out_where_the_item_is_asked_for(device):
    made = prepared(lambda item: 1 / item, [1, 0], torch.device(device))
    assert next(made) == 1
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_a_tensor_on_the_host_stays_where_it_is():
    tensor = torch.arange(3)
    assert to_host(tensor)() is tensor
