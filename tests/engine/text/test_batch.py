import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtremely.engine.text.batch import collate, plan
from xtremely.engine.text.tokenizer import Tokens
from xtremely.kernels.guard import InputError


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_a_plan_holds_everything_once_under_the_budget_longest_first(lengths, budget):
    batches = plan(lengths, budget)
    flat = [i for batch in batches for i in batch.tolist()]
    assert sorted(flat) == list(range(len(lengths)))
    ordered = [lengths[i] for i in flat]
    assert ordered == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= budget
    for batch, following in zip(batches, batches[1:], strict=False):
        assert sum(lengths[i] for i in batch) + lengths[following[0]] > budget


def test_equal_lengths_keep_the_callers_order():
    assert [batch.tolist() for batch in plan([2, 3, 2, 3], 6)] == [[1, 3], [0, 2]]


def test_a_budget_below_one_is_refused():
    with pytest.raises(InputError, match="token budget 0"):
        plan([1], 0)


def test_collate_packs_the_chosen_texts_in_the_given_order():
    tokens = Tokens(
        ids=np.array([10, 11, 20, 30, 31, 32], dtype=np.int32),
        types=np.array([0, 1, 0, 0, 0, 1], dtype=np.uint8),
        offsets=np.array([0, 2, 3, 6]),
        truncated=0,
    )
    batch = collate(tokens, np.array([2, 0]))
    assert batch.input_ids.tolist() == [30, 31, 32, 10, 11]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert batch.type_ids.tolist() == [0, 0, 1, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 3, 5]
    assert (batch.max_seqlen, batch.order.tolist(), batch.tokens) == (3, [2, 0], 5)
