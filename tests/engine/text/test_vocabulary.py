"""Folders whose vocabulary is missing, cut off or of another model."""

import json
import shutil
import warnings

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, processors

from xtremely.engine.runtime import Engine
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.vocabulary import SCRIPTS, load_tokenizer
from xtremely.kernels.guard import InputError

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KINDS = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
NAMES = dict(zip(KINDS, SPECIALS, strict=True))


@pytest.fixture
def folder(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "model")


def without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def write(folder, pieces, unknown="[UNK]", **config):
    """A tokenizer of whole words, as an ordinary folder has one."""
    without_tokenizer(folder)
    vocabulary = {piece: number for number, piece in enumerate([*SPECIALS, *pieces])}
    library = Library(models.WordLevel(vocabulary, unk_token=unknown))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    library.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **NAMES, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


WORDS = [f"w{n}" for n in range(1000)]


def empty(folder):
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["model"]["vocab"] = []
    path.write_text(json.dumps(raw))


def cut(folder):
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["model"]["vocab"] = raw["model"]["vocab"][:4]
    path.write_text(json.dumps(raw))


def lines(folder):
    without_tokenizer(folder)
    (folder / "vocab.txt").write_text("\n".join(SPECIALS) + "\n")


FAULTS = {
    "nothing": (without_tokenizer, "no usable tokenizer, as there is no vocabulary"),
    "a configuration alone": (lambda f: (f / "tokenizer.json").unlink(), "there is no vocabulary"),
    "vocab.txt of five lines": (lines, "vocabulary is empty but for 5 special tokens"),
    "vocab.txt of nothing": (
        lambda f: (without_tokenizer(f), (f / "vocab.txt").write_text("")),
        "vocabulary is empty but for|no usable tokenizer",
    ),
    "no pieces": (empty, "no usable tokenizer"),
    "special pieces": (cut, "the tokenizer has only 5 pieces, the word table 2000 rows"),
    "no tokenizer in it": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        "no usable tokenizer",
    ),
    "broken": (lambda f: (f / "tokenizer.json").write_text("{"), "no usable tokenizer"),
    "a folder": (
        lambda f: ((f / "tokenizer.json").unlink(), (f / "tokenizer.json").mkdir()),
        "there is no vocabulary",
    ),
    "a hundred pieces": (lambda f: write(f, WORDS[:100]), "has only 105 pieces, the word table 2"),
    "too many pieces": (
        lambda f: write(f, [f"w{n}" for n in range(3000)]),
        "has 3005 pieces, the word table only 2000 rows; they belong to different models",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_without_its_vocabulary_is_refused(folder, fault):
    edit, complaint = FAULTS[fault]
    edit(folder)
    with pytest.raises(InputError, match=complaint) as said:
        Engine.load(str(folder))
    assert "\n" not in str(said.value)
    with pytest.raises(InputError):  # training and exporting have no other way to one
        Tokenizer(folder, 128)


def test_an_id_beyond_the_word_table_counts_however_few_pieces_there_are(folder):
    write(folder, WORDS)
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["model"]["vocab"]["w7"] = 2000
    path.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="has 2001 pieces, the word table only 2000 rows"):
        Tokenizer(folder, 128)


def test_a_tokenizer_that_knows_no_text_is_refused(folder):
    # Pieces that no text can give: the words before them are cut at every space.
    write(folder, [f"two words {n}" for n in range(1500)])
    with pytest.raises(InputError, match="knows no text: Latin letters, 10 scripts and its own"):
        Tokenizer(folder, 128)


def test_a_tokenizer_of_unusual_words_is_known_by_its_own_pieces(folder):
    with pytest.warns(UserWarning, match="does not know most of Latin, Cyrillic"):
        tokenizer = Tokenizer(write(folder, [f"w{n}" for n in range(1500)]), 128)
    assert tokenizer(["w3 w4"]).ids.tolist() == [2, 8, 9, 3]


@pytest.mark.parametrize("unknown", ["[UNK]", "[GONE]"])
def test_a_tokenizer_to_which_the_letter_a_is_unknown_is_read(folder, unknown):
    words = [word for text in SCRIPTS.values() for word in text.split()]
    distinct = list(dict.fromkeys([*words, *WORDS]))
    tokenizer = Tokenizer(write(folder, distinct, unknown), 128)
    tokens = tokenizer.pairs(["human rights"], ["human"])
    human, rights = (distinct.index(word) + 5 for word in ("human", "rights"))
    assert tokens.ids.tolist() == [2, human, rights, 3, human, 3]


def test_a_latin_vocabulary_loads_and_says_what_it_does_not_know(folder):
    letters = [chr(n) for n in range(ord("a"), ord("z") + 1)]
    write(folder, [*SCRIPTS["Latin"].split(), *letters, *WORDS])
    with pytest.warns(UserWarning, match="model: its tokenizer does not know most of Cyr") as said:
        vectors = Engine.load(str(folder)).embed(["human rights"])
    assert np.isfinite(vectors).all()
    assert "Latin" not in str(said[0].message)


def test_a_table_far_larger_than_the_vocabulary_is_warned_of(folder):
    write(folder, [*SCRIPTS["Latin"].split(), *WORDS[:300]])
    with pytest.warns(UserWarning, match="word table 2000 rows, most of them out of reach"):
        Tokenizer(folder, 128)


def test_a_vocabulary_that_fits_is_not_warned_of(tiny_bert):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        Tokenizer(tiny_bert, 128)


def test_special_tokens_that_are_not_in_the_vocabulary_are_refused(folder):
    write(folder, [*SCRIPTS["Latin"].split(), *WORDS])
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["post_processor"] = {"type": "BertProcessing", "sep": ["[UNK]", 1], "cls": ["[UNK]", 1]}
    path.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="lacks the special tokens that it puts around a text"):
        Tokenizer(folder, 128)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_max_length": "12"}, "'model_max_length' is '12'; legal: a valid number"),
        ({"model_max_length": True}, "'model_max_length' is True"),
        ({"model_max_length": 0}, "'model_max_length' is 0"),
        ({"truncation_side": "left"}, "cuts long texts on the left side; legal: right"),
        (
            {"truncation_side": "both"},
            "'truncation_side' is 'both'; legal: '(right|left)' or '(right|left)'",
        ),
        ({"tokenizer_class": 5}, "'tokenizer_class' is 5; legal: a valid string"),
        ({"unk_token": ["<unk>"]}, "'unk_token' is"),
        ({"model_input_names": "input_ids"}, "'model_input_names' is 'input_ids'"),
        ({"added_tokens_decoder": 5}, "no usable tokenizer"),
    ],
    ids=str,
)
def test_a_field_of_tokenizer_config_that_does_not_fit_is_named(folder, changes, complaint):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, match=complaint):
        Tokenizer(folder, 128)


def test_the_number_that_transformers_writes_for_no_limit_is_legal(folder):
    path = folder / "tokenizer_config.json"
    limit = {"model_max_length": 1000000000000000019884624838656}
    path.write_text(json.dumps({**json.loads(path.read_text()), **limit}))
    Tokenizer(folder, 128)


def test_a_sound_folder_gives_transformers_own_tokenizer(folder):
    texts = ["Hello there", "人人生而自由"]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert load_tokenizer(folder)(texts)["input_ids"] == theirs(texts)["input_ids"]


def test_code_that_comes_with_a_folder_is_not_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    path = folder / "tokenizer_config.json"
    about = {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "tokenizer_class": "T"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **about}))
    try:
        Tokenizer(folder, 128)
    except InputError as error:
        assert "no usable tokenizer" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("model", "tokenizer", "fits"),
    [
        (1, "<pad>", True),
        (0, "<pad>", False),
        (7, "<pad>", False),
        (2, None, False),
        (7, None, True),
    ],
)
def test_what_roberta_counts_positions_by_is_the_tokenizers_padding(
    make_tiny, tmp_path, model, tokenizer, fits
):
    folder = shutil.copytree(make_tiny("xlm-roberta"), tmp_path / "model")
    for name, field, value in (
        ("config.json", "pad_token_id", model),
        ("tokenizer_config.json", "pad_token", tokenizer),
    ):
        raw = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**raw, field: value}))
    if fits:
        Tokenizer(folder, 100)
    else:
        with pytest.raises(InputError, match=f"'pad_token_id' is {model}, which is another token"):
            Tokenizer(folder, 100)
