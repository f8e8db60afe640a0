"""Sequences joined from texts, by hand."""

import numpy as np
import pytest

from xtremely.engine.text.template import Template


def ids(*numbers):
    return np.array(numbers, dtype=np.int32)


def kinds(*numbers):
    return np.array(numbers, dtype=np.uint8)


# As XLNet's: nothing before the first text, two special tokens of two types after the second.
XLNET = Template((ids(), ids(4), ids(4, 3)), (kinds(), kinds(0), kinds(1, 2)), (0, 1))
BARE = Template((ids(), ids()), (kinds(), kinds()), (0,))


def test_pairs_with_special_tokens_of_several_types():
    joined, types, borders = XLNET.join([(ids(7, 8), ids(9)), (ids(), ids(5, 6, 7))])
    assert joined.tolist() == [7, 8, 4, 9, 4, 3, 4, 5, 6, 7, 4, 3]
    assert types.tolist() == [0, 0, 0, 1, 1, 2, 0, 1, 1, 1, 1, 2]
    assert borders.tolist() == [0, 6, 12]
    assert (joined.dtype, types.dtype, borders.dtype) == (np.int32, np.uint8, np.int64)


def test_texts_without_special_tokens():
    joined, types, borders = BARE.join([[ids(7, 8)], [ids()], [ids(9)]])
    assert joined.tolist() == [7, 8, 9]
    assert types.tolist() == [0, 0, 0]
    assert borders.tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize("template", [XLNET, BARE])
def test_no_sequences(template):
    assert [one.tolist() for one in template.join([])] == [[], [], [0]]


def test_a_wrong_number_of_texts_is_an_error():
    with pytest.raises(ValueError, match="shorter|longer"):
        XLNET.join([[ids(7)]])
