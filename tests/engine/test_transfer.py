"""Work for the next batch is done ahead; nothing is lost on the way."""

import threading

import pytest
import torch

from xtremely.engine.transfer import prepared, to_host


@pytest.mark.parametrize("items", [[], [3], [3, 1, 2]])
def test_everything_comes_out_in_order(items):
    made = prepared(lambda item: item * 10, items)
    assert list(made) == [item * 10 for item in items]


def test_the_next_item_is_made_while_this_one_is_used():
    second = threading.Event()

    def make(item):
        if item == 2:
            second.set()
        return item

    made = prepared(make, [1, 2, 3])
    assert next(made) == 1
    assert second.wait(timeout=30)


def test_trouble_comes_out_where_the_item_is_asked_for():
    made = prepared(lambda item: 1 / item, [1, 0])
    assert next(made) == 1
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_a_tensor_on_the_host_stays_where_it_is():
    tensor = torch.arange(3)
    assert to_host(tensor)() is tensor
