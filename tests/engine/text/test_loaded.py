"""A tokenizer from the cache is the one that transformers loaded from the same files."""

import importlib.machinery
import json
import shutil
import sys
import types
from dataclasses import replace

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from xtremely.engine.text import loaded
from xtremely.engine.text.loaded import load
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.kernels.guard import InputError

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
AROUND = (("[SEP]", 3), ("[CLS]", 2))


def word_pieces():
    """BERT's: accents off, lower case, whole words and their ends."""
    pieces = [*SPECIALS, "the", "cat", "un", "##s", "##able", "e", *map(chr, range(0x400, 0x500))]
    made = Library(models.WordPiece({one: n for n, one in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(*AROUND)
    return made, "BertTokenizer"


def byte_pairs():
    """GPT-2's and ModernBERT's: bytes, merged."""
    pieces = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "Ġthe"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    made = Library(models.BPE({one: n for n, one in enumerate(pieces)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[SEP]", 3), ("[CLS]", 2)],
    )
    return made, "PreTrainedTokenizerFast"


@pytest.fixture(params=["word pieces", "byte pairs", "unigram"])
def folder(request, tiny_bert, tmp_path, monkeypatch):
    """A model folder, with an empty cache."""
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    made = shutil.copytree(tiny_bert, tmp_path / "model")
    if request.param != "unigram":
        library, name = {"word pieces": word_pieces, "byte pairs": byte_pairs}[request.param]()
        library.save(str(made / "tokenizer.json"))
        about = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS, strict=True))
        about = {f"{key}_token": value for key, value in about.items()}
        about |= {"tokenizer_class": name, "additional_special_tokens": ["<extra>"]}
        (made / "tokenizer_config.json").write_text(json.dumps(about))
    return made


@pytest.mark.filterwarnings("ignore:model.*tokenizer")
def test_it_is_the_same_to_the_last_token(folder, sentences, monkeypatch):
    texts = [*sentences, "The unable cats [SEP] <extra> é", "a  b\n", "[MASK]"]
    theirs = AutoTokenizer.from_pretrained(folder)(texts, truncation=True, max_length=128)
    first, fresh = load(folder), Tokenizer(folder, 128)
    monkeypatch.setattr(loaded, "load_tokenizer", None)  # transformers is not asked again
    second, kept = load(folder), Tokenizer(folder, 128)
    assert second.facts == first.facts
    assert second.backend.to_str() == first.backend.to_str()
    for name in ("special_ids", "unknown", "typed", "takes_pairs", "vocabulary"):
        assert getattr(kept, name) == getattr(fresh, name)
    found = kept(texts)
    borders = found.offsets
    for number, row in enumerate(theirs["input_ids"]):
        assert found.ids[borders[number] : borders[number + 1]].tolist() == row
    both = [one.pairs(texts, texts[::-1]) for one in (fresh, kept)]
    assert both[0].ids.tolist() == both[1].ids.tolist()
    assert both[0].types.tolist() == both[1].types.tolist()


@pytest.mark.parametrize("folder", ["unigram"], indirect=True)
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_other_files_are_read_anew(folder, file, monkeypatch):
    load(folder)
    (folder / "model.safetensors").write_bytes(b"other weights, which do not matter")
    raw = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**raw, "comment": 1}))
    seen = []
    monkeypatch.setattr(loaded, "load_tokenizer", lambda folder: seen.append(folder) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load(folder)
    assert seen == [folder]


@pytest.mark.oracle
@pytest.mark.parametrize("folder", ["word pieces"], indirect=True)
@pytest.mark.filterwarnings("ignore:model.*tokenizer")
def test_special_tokens_in_texts_are_text_where_the_folder_says_so(folder, monkeypatch):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"split_special_tokens": True}))
    theirs = AutoTokenizer.from_pretrained(folder)("the [SEP] cat")["input_ids"]
    assert theirs.count(3) == 1
    assert Tokenizer(folder, 128)(["the [SEP] cat"]).ids.tolist() == theirs
    monkeypatch.setattr(loaded, "load_tokenizer", None)  # the second comes from the cache
    assert Tokenizer(folder, 128)(["the [SEP] cat"]).ids.tolist() == theirs


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:model.*tokenizer")
def test_a_tokenizer_with_a_part_in_python_is_loaded_each_time(tiny_bert, tmp_path, monkeypatch):
    words = types.SimpleNamespace(
        cut=lambda text, hmm: list(text),
        tokenize=lambda text, hmm: [(one, n, n + 1) for n, one in enumerate(text)],
        __spec__=importlib.machinery.ModuleSpec("rjieba", None),
    )
    monkeypatch.setitem(sys.modules, "rjieba", words)  # RoFormer's division into Chinese words
    made = shutil.copytree(tiny_bert, tmp_path / "model")
    (made / "tokenizer.json").unlink()
    pieces = [*SPECIALS, *map(chr, range(0x4E00, 0x4F00))]
    (made / "vocab.txt").write_text("\n".join(pieces))
    (made / "tokenizer_config.json").write_text('{"tokenizer_class": "RoFormerTokenizer"}')
    theirs = AutoTokenizer.from_pretrained(made)("\u4e00\u4e01")["input_ids"]
    assert theirs == [2, 5, 6, 3]
    for _ in range(2):
        assert Tokenizer(made, 128)(["\u4e00\u4e01"]).ids.tolist() == theirs


@pytest.mark.parametrize("folder", ["unigram"], indirect=True)
def test_a_damaged_copy_is_replaced(folder, tmp_path):
    first = load(folder)
    (path,) = (tmp_path / "cache" / "tokenizers").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert replace(load(folder), backend=None) == replace(first, backend=None)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("folder", ["unigram"], indirect=True)
def test_lower_case_is_not_kept(folder):
    """It belongs to the engine's use of a tokenizer, not to its files."""
    lowered = Tokenizer(folder, 128, lower=True)
    assert lowered(["ABC abc"]).ids.tolist() == lowered(["abc abc"]).ids.tolist()
    plain = Tokenizer(folder, 128)
    assert plain(["ABC abc"]).ids.tolist() != plain(["abc abc"]).ids.tolist()


def test_a_folder_that_is_refused_is_refused_again(tiny_bert, tmp_path):
    made = shutil.copytree(tiny_bert, tmp_path / "model")
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
    for _ in range(2):
        with pytest.raises(InputError, match="the word table only 5 rows"):
            Tokenizer(made, 128)
