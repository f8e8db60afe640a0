"""Sentences through a model into a store: what decides its name, and vectors that it refuses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from xtremely.engine.runtime import Engine
from xtremely.eval.mining import embed
from xtremely.eval.mining.corpus import prepare
from xtremely.eval.run import results

TEXT = "".join(f"s{n}\tSentence {n}.\n" for n in range(6)).replace("Sentence 1.", "Sentence 0.")


def test_sentences_that_were_read_otherwise_get_other_vectors(write, tmp_path):
    corpus = prepare(write("a.txt", TEXT), tmp_path)
    encoding = SimpleNamespace(about=lambda engine: {"model": "m"})
    folders = [
        embed.store_of(None, one, encoding, tmp_path).folder
        for one in (corpus, replace(corpus, texts="0" * 64), replace(corpus, source="1" * 64))
    ]
    assert len({*folders}) == 3


def test_another_version_of_a_library_makes_other_vectors(write, tmp_path, monkeypatch):
    corpus = prepare(write("a.txt", TEXT), tmp_path)
    encoding = SimpleNamespace(about=lambda engine: {"model": "m"})
    folders = []
    for version in ("1", "2", "1"):
        monkeypatch.setattr(results, "version", lambda name, version=version: version)
        folders.append(embed.store_of(None, corpus, encoding, tmp_path).folder)
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (0, "1 sentences have no direction to compare, first s4: the model gives zeros"),
        (np.nan, "1 sentences have no direction to compare, first s4: the model gives zeros, NaN"),
        (-np.inf, "1 sentences have no direction to compare, first s4: the model gives zeros"),
        (1e5, "fp16 cannot hold the values (6.1e-05 to 65,504) in 1 rows, first in row 4 (count"),
    ],
)
def test_a_vector_that_cannot_be_kept_is_named(
    xtremely, tiny_bert, write, tmp_path, monkeypatch, value, complaint
):
    """Of five sentences the fourth, the second of the second shard."""
    pooled, calls = Engine.pooled, []

    def spoils(*arguments, **options):
        values, work = pooled(*arguments, **options)
        calls.append(len(values))
        if len(calls) == 2:
            values[1] = value
        return values, work

    monkeypatch.setattr(Engine, "pooled", spoils)
    monkeypatch.setattr(embed, "SHARD", 2)
    x = write("x.tsv", TEXT)
    out = tmp_path / "i"
    code, _, errors = xtremely("index", "build", x, "--model", tiny_bert, "--out", out)
    assert code == 1 and f"error: {complaint}" in errors and "Traceback" not in errors, errors
    assert calls == [2, 2] and not out.exists()
