import numpy as np
import pytest

from xtremely.engine.foreign import foreign, one_line
from xtremely.engine.runtime import Engine
from xtremely.engine.text.texts import checked, shown
from xtremely.engine.text.windows import pieces
from xtremely.kernels.guard import InputError

HALF = "Der B\ud83dcker"


@pytest.fixture(scope="module")
def engine(tiny_bert):
    return Engine.load(str(tiny_bert))


@pytest.mark.parametrize(
    "texts",
    [
        ["one", "two"],
        ("one", "two"),
        (text for text in ("one", "two")),
        np.array(["one", "two"]),
        np.array(["one", "two"], dtype=object),
        dict.fromkeys(["one", "two"]).keys().__iter__(),
    ],
    ids=["list", "tuple", "generator", "array", "objects", "iterator"],
)
def test_whatever_gives_texts_in_order_is_read_once_and_whole(engine, texts):
    expected = engine.embed(["one", "two"])
    np.testing.assert_array_equal(engine.embed(texts), expected)


def test_texts_are_plain_strings_afterwards():
    assert [type(text) for text in checked(np.array(["a", "b"]))] == [str, str]


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ("one", r"texts is one string \(str\); pass a list"),
        (b"one", r"texts is one string \(bytes\)"),
        (None, "texts is a NoneType; pass a list"),
        (7, "texts is a int; pass a list"),
        ({"a": 1}, "texts is a dict; pass a list"),
        ({"a"}, "texts is a set; pass a list"),
        (np.array("one"), "texts is a ndarray of several dimensions or none"),
        (np.array([["a"], ["b"]]), "texts is a ndarray of several dimensions or none"),
        (["a", None], "text 2 of 2 is a NoneType, expected a string"),
        (["a", float("nan"), "b"], "text 2 of 3 is a float"),
        ([1, "a"], "text 1 of 2 is a int"),
        (["a", "b", b"c"], "text 3 of 3 is a bytes"),
        (np.array([1.0]), "text 1 of 1 is a float64"),
        (["a", HALF], r"text 2 of 2 holds half a character \(the lone surrogate \\ud83d at char"),
    ],
    ids=str,
)
def test_what_is_no_list_of_texts_is_refused_by_its_place(engine, texts, complaint):
    with pytest.raises(InputError, match=complaint) as said:
        engine.embed(texts)
    assert "\n" not in str(said.value)
    str(said.value).encode()  # the complaint itself can be written


def test_every_way_into_the_tokenizer_is_guarded(engine):
    tokenizer = engine.tokenizer
    ways = [
        lambda: tokenizer(["a", HALF]),
        lambda: tokenizer.rows(["a", HALF]),
        lambda: pieces(tokenizer, ["a", HALF]),
        lambda: tokenizer.pairs(["a"], [HALF]),
    ]
    for way in ways:
        with pytest.raises(InputError, match="text 2 of 2 holds half a character"):
            way()


def test_a_prompt_that_is_no_text_is_refused(engine):
    with pytest.raises(InputError, match="holds half a character"):
        engine.embed(["a"], prompt="\udc00")


def test_a_long_text_is_shown_by_its_beginning():
    assert shown("x" * 61) == repr("x" * 60 + "...")
    assert shown("x" * 60) == repr("x" * 60)
    assert shown("a\nb") == r"'a\nb'"


def test_another_librarys_complaint_becomes_one_line():
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(ValueError("x" * 500)) == "x" * 197 + "..."
    assert one_line(KeyError("added")) == "KeyError: 'added'"
    assert one_line(ValueError()) == "ValueError"


def test_what_is_not_the_files_fault_passes_through():
    class PanicException(BaseException):  # noqa: N818  (as Rust's bridge calls it)
        pass

    with pytest.raises(InputError, match=r"f: broken \(index out of range\)"), foreign("f: broken"):
        raise PanicException("index out of range")
    for other in (KeyboardInterrupt, MemoryError):
        with pytest.raises(other), foreign("f: broken"):
            raise other
    with pytest.raises(InputError, match="^ours$"), foreign("f: broken"):
        raise InputError("ours")
