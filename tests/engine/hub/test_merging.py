"""Adapters of PEFT: merged at loading, equal to PEFT's own unmerged model, or refused."""

import numpy as np
import peft
import pytest
import torch
import transformers
from adapted import TEXTS, adapt, lora, means, outputs
from safetensors.torch import load_file

from xtremely.engine.hub.locate import locate
from xtremely.engine.models.ops import TORCH
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate
from xtremely.kernels.guard import InputError

pytestmark = pytest.mark.usefixtures("cache")

BERT = ["query", "value", "dense"]
CASES = {
    "bert": ("bert", {}, lambda: lora(target_modules=BERT, task_type="FEATURE_EXTRACTION")),
    "xlm-roberta, rslora": (
        "xlm-roberta",
        {},
        lambda: lora(target_modules=["key"], use_rslora=True, rank_pattern={"0.*.key": 2}),
    ),
    "modernbert, dora": (
        "modernbert",
        {"local_attention": 8},
        lambda: lora(target_modules=["Wqkv", "Wi"], use_dora=True, task_type="FEATURE_EXTRACTION"),
    ),
    "bert, embeddings and biases": (
        "bert",
        {},
        lambda: lora(target_modules=["word_embeddings", "query"], bias="all"),
    ),
    "bert, whole modules": (
        "bert",
        {},
        lambda: lora(target_modules=["query"], modules_to_save=["word_embeddings", "LayerNorm"]),
    ),
    "xlm-roberta, LoHa": ("xlm-roberta", {}, lambda: peft.LoHaConfig(target_modules=["value"])),
    "bert, IA3": (
        "bert",
        {},
        lambda: peft.IA3Config(target_modules=["key", "query"], feedforward_modules=[]),
    ),
}


def assert_equals_peft(engine, adapted, folder, texts):
    """In fp64, whose rounding is far below that of merged weights to fp32, on any processor."""
    exact = means(outputs(adapted.double(), folder, texts))
    encoder = engine.backend.encoder.double()
    batch, last = collate(engine.tokens(texts), np.arange(len(texts))), encoder.config.layers
    states = encoder(batch, [last], TORCH)[last].split(list(batch.layout.lengths))
    assert np.linalg.norm(means(states) - exact, axis=1).max() < 5e-7


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES)
def test_vectors_equal_those_of_the_unmerged_model(case, make_tiny, tmp_path):
    kind, changes, settings = CASES[case]
    base = make_tiny(kind, **changes)
    adapted = adapt(base, tmp_path / "a", settings())
    plain = Engine.load(str(base), backend="torch").embed(TEXTS)
    engine = Engine.load(str(tmp_path / "a"), backend="torch")
    assert np.abs(engine.embed(TEXTS) - plain).max() > 1e-3
    assert_equals_peft(engine, adapted, base, TEXTS)
    assert engine.name == "a" and engine.folder.parent.name == "converted"


LABELS = {0: "entailment", 1: "neutral", 2: "contradiction"}
HEADS = {
    "bert SEQ_CLS": ("bert", "SEQ_CLS", "SequenceClassification", "sequence classification"),
    "bert TOKEN_CLS": ("bert", "TOKEN_CLS", "TokenClassification", "token classification"),
    "xlm-roberta SEQ_CLS": (
        *("xlm-roberta", "SEQ_CLS"),
        *("SequenceClassification", "sequence classification"),
    ),
    "xlm-roberta QUESTION_ANS": (
        *("xlm-roberta", "QUESTION_ANS"),
        *("QuestionAnswering", "question answering"),
    ),
    "bert, no task type": ("bert", None, "MultipleChoice", "multiple choice"),
    "modernbert SEQ_CLS": (
        *("modernbert", "SEQ_CLS"),
        *("SequenceClassification", "sequence classification"),
    ),
}


@pytest.mark.oracle
@pytest.mark.parametrize("case", HEADS)
def test_heads_equal_those_of_the_unmerged_model(case, make_tiny, tmp_path):
    kind, task, name, head = HEADS[case]
    base, target = make_tiny(kind), ["Wqkv"] if kind == "modernbert" else ["query", "value"]
    saved = {"modernbert": ["head", "classifier"]}.get(kind, None if task else ["classifier"])
    settings = lora(target_modules=target, task_type=task, modules_to_save=saved)
    labels = {} if head in ("question answering", "multiple choice") else {"id2label": LABELS}
    adapted = adapt(base, tmp_path / "a", settings, f"AutoModelFor{name}", **labels)
    if labels:
        adapted.get_base_model().config.save_pretrained(tmp_path / "a")
    engine = Engine.load(str(tmp_path / "a"), backend="torch")
    loaded = engine.head(head, LABELS.values() if labels else ())
    assert loaded.labels == (tuple(LABELS.values()) if labels else ())
    found = {}

    def take(outputs, batch):
        rows = outputs if head not in ("token classification", "question answering") else None
        parts = rows if rows is not None else outputs.split(batch.layout.lengths)
        found.update(zip(batch.order.tolist(), parts, strict=True))

    engine.predict(loaded, engine.tokens(TEXTS), take)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    for number, text in enumerate(TEXTS):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            made = adapted(ids[None] if head == "multiple choice" else ids)
        expected = (
            torch.stack([made.start_logits[0], made.end_logits[0]], dim=-1)
            if head == "question answering"
            else made.logits[0]
        )
        torch.testing.assert_close(found[number], expected, rtol=1e-5, atol=1e-5)


def test_a_head_without_names_of_its_labels_has_as_many_as_the_adapter(make_tiny, tmp_path):
    settings = lora(target_modules=["query"], task_type="SEQ_CLS")
    adapt(
        *(make_tiny("bert"), tmp_path / "a", settings, "AutoModelForSequenceClassification"),
        num_labels=5,
    )
    engine = Engine.load(str(tmp_path / "a"), backend="torch")
    head = engine.head("sequence classification", None)
    assert head.labels == tuple(f"LABEL_{number}" for number in range(5))
    with pytest.raises(InputError, match="does not say what the head's outputs mean"):
        engine.head("sequence classification", LABELS.values())


LOST = {
    "modernbert": ("AutoModel", ["Wqkv"], "head.dense.weight"),
    "bert": ("AutoModelForMaskedLM", ["query"], "bert.pooler.dense.bias"),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_head_that_was_trained_and_not_saved_is_refused(kind, make_tiny, tmp_path):
    """PEFT saves the classifier, but not the random dense layer below it."""
    auto, target, name = LOST[kind]
    settings = lora(target_modules=target, task_type="SEQ_CLS")
    base = make_tiny(kind, auto)
    adapt(base, tmp_path / "a", settings, "AutoModelForSequenceClassification")
    with pytest.raises(InputError, match=f"/a: neither the adapter nor .*{name}.*modules_to_save"):
        locate(str(tmp_path / "a"))


@pytest.mark.oracle
@pytest.mark.parametrize("target", [["query"], ["query", "word_embeddings"]], ids=str)
def test_added_tokens_are_those_of_the_adapter(target, make_tiny, tmp_path):
    base = make_tiny("bert")
    adapted = adapt(base, tmp_path / "a", lora(target_modules=target), rows=2003)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["hello"])
    rows = len(tokenizer)
    tokenizer.save_pretrained(tmp_path / "a")
    engine = Engine.load(str(tmp_path / "a"), backend="torch")
    texts = ["Oh hello there", "x"]
    assert rows - 1 in engine.tokens(texts).ids
    assert_equals_peft(engine, adapted, tmp_path / "a", texts)
    assert load_file(engine.folder / "model.safetensors")[
        "embeddings.word_embeddings.weight"
    ].shape == (2003, 48)
