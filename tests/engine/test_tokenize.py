import numpy as np
import pytest

from xtremely.engine.tokenize import Tokenizer
from xtremely.kernels.guard import InputError


@pytest.fixture
def tokenizer(tiny_bert):
    return Tokenizer(tiny_bert, max_length=128)


def rows(tokens):
    return [row.tolist() for row in np.split(tokens.ids, tokens.offsets[1:-1])]


@pytest.mark.oracle
def test_ids_are_those_of_the_models_own_tokenizer(e5, sentences):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(e5.folder)(sentences, truncation=True, max_length=512)
    assert rows(e5.tokenizer(sentences)) == theirs["input_ids"]


def test_the_tail_of_an_over_long_text_is_cut_counted_and_closed(tokenizer):
    tokens = tokenizer(["short", "word " * 5000])
    full = tokenizer(["word " * 20]).ids
    assert tokens.truncated == 1
    assert tokens.lengths.tolist()[1] == 128
    long = tokens.ids[tokens.offsets[1] :]
    assert long[:50].tolist() == full[:50].tolist()
    assert long[-1] == full[-1]  # the closing special token


def test_an_empty_text_is_its_special_tokens(tokenizer):
    assert rows(tokenizer([""])) == [[0, 2]]


def test_texts_seen_before_give_the_same_ids_in_any_company(tokenizer):
    first = rows(tokenizer(["a b", "c", "a b"]))
    assert rows(tokenizer(["c", "d", "a b"])) == [first[1], rows(tokenizer(["d"]))[0], first[0]]


def test_no_texts_give_no_tokens(tokenizer):
    assert len(tokenizer([])) == 0


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="no usable tokenizer"):
        Tokenizer(tmp_path, 128)
