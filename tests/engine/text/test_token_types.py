"""Models whose type table lacks a type of their tokenizer: they take texts, but no pairs."""

import json
import shutil

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer, BertTokenizer

from xtremely.engine.runtime import Engine
from xtremely.engine.text.windows import windows
from xtremely.eval.check.whole import check_model
from xtremely.kernels.guard import InputError

TEXTS = ["a cat", "abcdef", "zz top"]


@pytest.fixture(params=["roberta", "bert", "ernie"])
def folder(request, make_tiny, tmp_path):
    """A model with one token type, and BERT's kind of tokenizer, as klue/roberta-base has."""
    signs = [chr(ord("a") + n) for n in range(26)]
    signs += [f"##{sign}" for sign in signs]
    names = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", *signs]
    made = shutil.copytree(
        make_tiny(request.param, type_vocab_size=1, vocab_size=len(names), pad_token_id=1),
        tmp_path / "model",
    )
    for old in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (made / old).unlink(missing_ok=True)
    vocabulary = {name: number for number, name in enumerate(names)}
    BertTokenizer(vocab=vocabulary, do_lower_case=False).save_pretrained(made)
    return made


@pytest.mark.filterwarnings("ignore:.*tokenizer does not know most of")
def test_texts_run_and_pairs_are_refused(folder):
    engine = Engine.load(str(folder))
    assert engine.tokenizer.typed and not engine.tokenizer.takes_pairs
    model, own = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(TEXTS, engine.embed(TEXTS), strict=True):
        state = model(**own(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        expected = (state / state.norm()).detach().numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    room = {"max_length": 30, "question_length": 8, "stride": 8}
    for pairing in (
        lambda: engine.tokenizer.pairs(TEXTS, TEXTS),
        lambda: windows(engine.tokenizer, TEXTS, TEXTS, [0, 1, 2], **room),
    ):
        with pytest.raises(InputError, match="'type_vocab_size' in config.json.*not have; use"):
            pairing()


@pytest.mark.filterwarnings("ignore:.*tokenizer does not know most of")
def test_they_run_where_the_tokenizer_makes_no_types(folder):
    path = folder / "tokenizer_config.json"
    about = json.loads(path.read_text()) | {"model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(about))
    tokens = Engine.load(str(folder)).tokenizer.pairs(TEXTS, TEXTS)
    assert len(tokens) == 3 and not tokens.types.any()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_check_leaves_pairs_out(make_tiny, folder, monkeypatch):
    monkeypatch.setattr("xtremely.eval.check.backends.combinations", lambda _: [("torch", "fp32")])
    report = check_model(str(folder), device="cpu")
    failed = [one.name for one in report.findings if one.passed is False]
    assert not [name for name in failed if name.startswith(("tokens", "layers"))], report.findings
