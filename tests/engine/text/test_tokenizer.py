import itertools
import json
import shutil
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import processors

from xtremely.engine.text.template import shares
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.kernels.guard import InputError

CLS, SEP = ("<s>", 0), ("</s>", 2)
# Ways of putting special tokens and types around two texts.
PROCESSORS = {
    "bert": processors.BertProcessing(SEP, CLS),
    "roberta": processors.RobertaProcessing(SEP, CLS),
    "typed": processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[CLS, SEP]
    ),
    "bare": processors.ByteLevel(),
}


@pytest.fixture
def tokenizer(tiny_bert):
    return Tokenizer(tiny_bert, max_length=128)


@pytest.fixture(params=[(name, typed) for name in PROCESSORS for typed in (True, False)], ids=str)
def variant(request, tiny_bert, tmp_path):
    """A folder whose tokenizer has another template, for a model with or without token types."""
    name, typed = request.param
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    library = Library.from_file(str(folder / "tokenizer.json"))
    library.post_processor = PROCESSORS[name]
    library.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    config = json.loads(path.read_text()) | {"model_input_names": inputs if typed else inputs[::2]}
    path.write_text(json.dumps(config))
    return folder


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


def assert_pairs_equal(mine, theirs):
    assert rows(mine) == theirs["input_ids"]
    types = [row.tolist() for row in np.split(mine.types, mine.offsets[1:-1])]
    zeros = [[0] * len(row) for row in theirs["input_ids"]]
    assert types == theirs.get("token_type_ids", zeros)


@pytest.mark.oracle
def test_pairs_are_those_of_any_tokenizer_cut_in_the_same_places(variant, sentences):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(variant)
    mine = Tokenizer(variant, max_length=128)
    first, second = zip(*itertools.product(sentences[::4], sentences[1::9]), strict=True)
    first, second = list(first + second), list(second + first)
    for limit in (128, 31, 8):
        ours = mine.pairs(first, second, limit)
        assert_pairs_equal(ours, theirs(first, second, truncation=True, max_length=limit))
        whole = [len(ids) for ids in theirs(first, second)["input_ids"]]
        assert ours.truncated == sum(length > limit for length in whole)


@pytest.mark.oracle
def test_pairs_of_the_default_model_are_those_of_its_tokenizer(e5):
    from transformers import AutoTokenizer

    from xtremely.eval.data.readers import read_lines
    from xtremely.eval.tasks.xtreme.mini import FOLDER

    lines = [line for path in sorted(FOLDER.glob("*.txt")) for line in read_lines(path)]
    first = [" ".join(lines[n : n + 1 + n % 6]) for n in range(len(lines))]
    second = [*first[44:], *first[:44]]
    theirs = AutoTokenizer.from_pretrained(e5.folder)(
        first, second, truncation=True, max_length=128
    )
    mine = e5.tokenizer.pairs(first, second, 128)
    assert_pairs_equal(mine, theirs)
    assert 50 < mine.truncated < len(first) - 50


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 50))
def test_two_texts_share_the_room_as_the_tokenizers_library_shares_it(first, second, room):
    from tokenizers import models, pre_tokenizers

    library = Library(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.enable_truncation(room)
    ids = library.encode("a " * first, "b " * second).ids
    assert shares(first, second, room) == (ids.count(0), ids.count(1))


def test_a_text_in_many_pairs_is_tokenised_once(tokenizer, monkeypatch):
    asked, library = [], tokenizer.backend

    class Spy:
        def encode_batch_fast(self, texts, **options):
            asked.extend(texts)
            return library.encode_batch_fast(texts, **options)

    monkeypatch.setattr(tokenizer, "backend", Spy())
    tokenizer.pairs(["premise"] * 3, ["a", "b", "c"])
    tokenizer.pairs(["c"], ["premise"])
    assert sorted(asked) == ["a", "b", "c", "premise"]


def test_no_pairs_give_no_tokens(tokenizer):
    assert len(tokenizer.pairs([], [])) == 0


def test_a_limit_below_the_special_tokens_is_refused(tokenizer):
    with pytest.raises(InputError, match="max_length 3 is not between 4 and the encoder's 128"):
        tokenizer.pairs(["a"], ["b"], 3)


def test_the_memory_of_texts_is_bounded_and_drops_the_oldest(tokenizer, monkeypatch):
    from xtremely.engine.text import tokenizer as tokenize

    monkeypatch.setattr(tokenize, "CACHED_TOKENS", 30)
    texts = [f"text number {letter}" for letter in "abcdefgh"]
    first = [row.tolist() for row in tokenizer.rows(texts)]
    held = [*tokenizer._seen]
    assert 0 < sum(len(row) for row in tokenizer._seen.values()) <= 30
    assert held == texts[-len(held) :]
    assert [row.tolist() for row in tokenizer.rows(texts)] == first


def test_texts_that_two_threads_tokenise_at_once_count_once(tokenizer, monkeypatch):
    from xtremely.engine.text import tokenizer as tokenize

    monkeypatch.setattr(tokenize, "CACHED_TOKENS", 30)
    backend, started = tokenizer.backend, []

    class Slow:
        """While the first thread tokenises, another one tokenises the same texts."""

        def encode_batch_fast(self, texts, **options):
            if not started:
                started.append(threading.Thread(target=tokenizer.rows, args=(texts,)))
                started[0].start()
                started[0].join()
            return backend.encode_batch_fast(texts, **options)

    monkeypatch.setattr(tokenizer, "backend", Slow())
    for letter in "abcdefgh":
        started.clear()
        (row,) = tokenizer.rows([f"text number {letter}"])
        alone = backend.encode(f"text number {letter}", add_special_tokens=False)
        assert row.tolist() == alone.ids
        assert tokenizer._seen_tokens == sum(map(len, tokenizer._seen.values())) > 0


def test_a_text_that_just_fits_does_not_count_as_cut(tokenizer):
    (row,) = tokenizer.rows(["one two three"])
    length = len(row) + tokenizer.single.specials
    assert tokenizer(["one two three"], length).truncated == 0
    assert tokenizer(["one two three"], length - 1).truncated == 1


def test_a_tokenizer_that_repeats_texts_is_refused(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    library = Library.from_file(str(folder / "tokenizer.json"))
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A $A", pair="<s> $A $B", special_tokens=[CLS]
    )
    library.save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match="'post_processor' in tokenizer.json., which does not run"):
        Tokenizer(folder, 100)


def test_a_tokenizer_without_special_tokens_is_noted(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    library = Library.from_file(str(folder / "tokenizer.json"))
    library.post_processor = PROCESSORS["bare"]
    library.save(str(folder / "tokenizer.json"))
    with pytest.warns(UserWarning, match="model: its tokenizer puts no special tokens around"):
        Tokenizer(folder, 100)
