"""The adapter's further outputs and its processes, against sentence-transformers'."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from stacks import save_stack

from xtremely.engine.adapters import SentenceEncoder
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

TEXTS = ["Ein Satz.", "", "one two three", "x", "a long text " * 30, "一个句子。"]
PROMPT = {"prompts": {"q": "ask me: "}, "default_prompt_name": "q", "truncate_dim": 60}


@pytest.fixture(scope="module")
def both(tiny_bert, tmp_path_factory):
    """A model with a stack, a prompt and fewer dimensions: ours and sentence-transformers'."""
    library = pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("stack") / "model"
    save_stack(tiny_bert, folder, "cls, Dense", **PROMPT)
    theirs = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return SentenceEncoder(Engine.load(str(folder), backend="torch")), theirs


@pytest.mark.oracle
def test_the_tokenizer_is_theirs(both):
    mine, theirs = both
    assert mine.tokenizer(TEXTS) == theirs.tokenizer(TEXTS)
    assert mine.tokenizer.model_max_length == mine.max_seq_length == theirs.max_seq_length


@pytest.mark.oracle
@pytest.mark.parametrize("options", [{}, {"prompt": ""}, {"convert_to_tensor": True}], ids=str)
def test_token_embeddings_are_theirs(both, options):
    mine, theirs = (one.encode(TEXTS, output_value="token_embeddings", **options) for one in both)
    assert type(mine) is type(theirs) is list and len(mine) == len(theirs)
    for ours, expected in zip(mine, theirs, strict=True):
        assert type(ours) is type(expected)
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)
    one, other = (model.encode("x", output_value="token_embeddings") for model in both)
    torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("output", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}])
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary", None])
def test_quantized_embeddings_are_theirs(both, sentences, precision, output):
    mine, theirs = (one.encode(sentences, precision=precision, **output) for one in both)
    assert type(mine) is type(theirs)
    if isinstance(mine, list):
        assert {type(one) for one in mine} == {type(one) for one in theirs}
        mine, theirs = torch.stack(mine), torch.stack(theirs)
    mine, theirs = np.asarray(mine), np.asarray(theirs)
    assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
    if precision is None:
        np.testing.assert_allclose(mine, theirs, atol=2e-6)
    else:  # a value on a border may fall on the other side
        assert np.mean(mine != theirs) < 0.002


@pytest.mark.oracle
def test_one_embedding_has_no_range_for_8_bits(both):
    with pytest.raises(InputError, match="embeddings cannot be made int8 .*single") as said:
        both[0].encode("x", precision="int8")
    assert "\n" not in str(said.value)
    np.testing.assert_array_equal(*(one.encode("x", precision="ubinary") for one in both))


@pytest.mark.oracle
def test_several_processes_give_the_same_vectors(both, sentences):
    mine, _ = both
    alone = mine.encode(sentences)
    pool = mine.start_multi_process_pool(["cpu", "cpu"])
    try:
        for size in (None, 1, 1000):
            found = mine.encode(sentences, pool=pool, chunk_size=size)
            np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)
        options = {"prompt": "", "truncate_dim": 7, "normalize_embeddings": True}
        np.testing.assert_allclose(
            mine.encode(sentences, pool=pool, **options),
            mine.encode(sentences, **options),
            atol=1e-6,
        )
        assert mine.encode([], pool=pool).shape == (0, 60)
        tokens = mine.encode(TEXTS, pool=pool, output_value="token_embeddings")
        expected = mine.encode(TEXTS, output_value="token_embeddings")
        torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)
        with pytest.raises(InputError, match="chunk_size is 0; legal: 1 or more"):
            mine.encode(TEXTS, pool=pool, chunk_size=0)
    finally:
        mine.stop_multi_process_pool(pool)
    listed = mine.encode(TEXTS, device=[torch.device("cpu")])
    np.testing.assert_allclose(listed, mine.encode(TEXTS), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("device", "complaint"),
    [("cuda:77", "'cuda:77' was asked for, but this"), ("abacus", "'abacus' is not known; legal")],
)
def test_a_device_that_is_not_there_is_refused(both, device, complaint):
    with pytest.raises(InputError, match=complaint):
        both[0].encode(TEXTS, device=["cpu", device])


def test_a_process_that_is_killed_is_reported(both, monkeypatch):
    mine = both[0]
    pool = mine.start_multi_process_pool(["cpu"])
    try:
        mine.encode(TEXTS, pool=pool)
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(InputError, match="one of 1 processes ended.*Start a new pool"):
                mine.encode(TEXTS, pool=pool)
    finally:
        mine.stop_multi_process_pool(pool)
