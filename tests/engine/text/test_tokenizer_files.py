"""Folders with vocabularies in other files than tokenizer.json, against transformers."""

import json

import numpy as np
import pytest
import sentencepiece
import torch
from transformers import AutoModel, AutoTokenizer, T5Config, T5EncoderModel

from xtremely.engine.runtime import Engine
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.windows import pieces
from xtremely.eval.tasks.xtreme.mini import FOLDER as MINI
from xtremely.kernels.guard import InputError

TEXTS = ["Hello there", "Wir gehen heute in den Wald.", "人人生而自由", "x y"]
MARKED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCEPIECE = {
    "xlm-roberta": ("sentencepiece.bpe.model", {}),
    "camembert": ("sentencepiece.bpe.model", {}),
    "deberta-v2": ("spm.model", {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}),
    "albert": ("spiece.model", {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}),
}


def characters():
    return sorted({c for path in MINI.glob("*.txt") for c in path.read_text("utf-8") if c.strip()})


def without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    return folder


def with_sentencepiece(folder, name, settings):
    """A SentencePiece model of the mini suite's characters in place of the tokenizer."""
    without_tokenizer(folder)
    lines = [line for path in MINI.glob("*.txt") for line in path.read_text("utf-8").splitlines()]
    if settings:
        settings = {**settings, "pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1}
    with (folder / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sorted(lines)),
            model_writer=file,
            vocab_size=1700,
            character_coverage=1.0,
            hard_vocab_limit=False,
            minloglevel=2,
            **settings,
        )
    return folder


@pytest.fixture(scope="module")
def phobert(make_tiny):
    """A RoBERTa with PhoBERT's tokenizer, which is written in Python."""
    folder = without_tokenizer(make_tiny("roberta", bos_token_id=0, eos_token_id=2))
    lines = [f"{c}{end} 1" for c in characters() for end in ("", "@@")]
    (folder / "vocab.txt").write_text("\n".join(lines[:1900]) + "\n")
    (folder / "bpe.codes").write_text("")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PhobertTokenizer"}')
    return folder


@pytest.fixture(scope="module")
def canine(make_tiny):
    changes = {"num_hash_buckets": 64, "max_position_embeddings": 256, "vocab_size": None}
    folder = without_tokenizer(make_tiny("canine", **changes))
    raw = json.loads((folder / "config.json").read_text())
    raw.pop("vocab_size")
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def by_transformers(folder):
    """Mean vectors, one text at a time, of length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    found = []
    for text in TEXTS:
        with torch.inference_mode():
            states = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        found.append(states.mean(0).numpy())
    return np.stack([one / np.linalg.norm(one) for one in found])


@pytest.mark.oracle
@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_a_sentencepiece_model_alone_is_enough(make_tiny, kind):
    name, settings = SENTENCEPIECE[kind]
    folder = with_sentencepiece(make_tiny(kind), name, settings)
    vectors = Engine.load(str(folder)).embed(TEXTS)
    np.testing.assert_allclose(vectors, by_transformers(folder), rtol=0, atol=1e-6)


@pytest.mark.oracle
def test_a_tokenizer_in_python_works_with_a_note(phobert):
    with pytest.warns(UserWarning, match=r"\(PhobertTokenizer\) has no fast form; texts are tok"):
        engine = Engine.load(str(phobert))
    assert engine.backend.implementation == "packed"
    np.testing.assert_allclose(engine.embed(TEXTS), by_transformers(phobert), rtol=0, atol=1e-6)


@pytest.mark.oracle
def test_characters_need_no_vocabulary(canine):
    engine = Engine.load(str(canine))
    np.testing.assert_allclose(engine.embed(TEXTS[:2]), by_transformers(canine)[:2], atol=1e-6)
    assert np.isfinite(engine.embed(["", "x"])).all()  # too short for transformers alone
    with pytest.raises(InputError, match="layer 2 of model type 'canine' has .* states for 13"):
        engine.embed(["Hello there"], layer=2)


@pytest.mark.oracle
def test_bytes_need_no_vocabulary(tmp_path):
    torch.manual_seed(1)
    sizes = {"vocab_size": 384, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2}
    T5EncoderModel(T5Config(**sizes, num_heads=4)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    theirs, model = (
        AutoTokenizer.from_pretrained(tmp_path),
        T5EncoderModel.from_pretrained(tmp_path),
    )
    texts = [*TEXTS, "", "\x00<extra_id_0> a</s>b"]
    found = Engine.load(str(tmp_path)).embed(texts, normalize=False)
    for vector, text in zip(found, texts, strict=True):
        with torch.inference_mode():
            states = model.eval()(**theirs(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(0), rtol=0, atol=1e-5)
    pair = Tokenizer(tmp_path, 128).pairs(["a"], ["bc"])
    assert pair.ids.tolist() == theirs("a", "bc")["input_ids"]


def split(values, tokens):
    return [row.tolist() for row in np.split(values, tokens.offsets[1:-1])]


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["phobert", "canine"])
def test_pairs_in_python_are_cut_as_transformers_cuts_them(request, name):
    folder = request.getfixturevalue(name)
    ours, theirs = Tokenizer(folder, 128), AutoTokenizer.from_pretrained(folder)
    first = ["abcdefghij", "abc", "abcdefghijk", "a b", ""]
    second = ["abcdefghij", "abcdefghijklmn", "xyz", "c d", "x"]
    for limit in (8, 9, 10, 11, 12, 128):
        tokens = ours.pairs(first, second, limit)
        made = theirs(first, second, truncation=True, max_length=limit)
        assert split(tokens.ids, tokens) == made["input_ids"], limit
        zeros = [[0] * len(row) for row in made["input_ids"]]
        assert split(tokens.types, tokens) == made.get("token_type_ids", zeros)


def test_a_tokenizer_in_python_finds_no_answers(phobert):
    with pytest.raises(InputError, match="does not say where in a text a token is; answers"):
        pieces(Tokenizer(phobert, 128), ["a text"])


def test_the_side_on_which_tokenizer_json_cuts_counts(make_tiny):
    folder = make_tiny("bert")
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["truncation"] = {
        "direction": "Left",
        "max_length": 128,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="cuts long texts on the left side; legal: right"):
        Engine.load(str(folder))
