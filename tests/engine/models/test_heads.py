"""Every head on packed batches against transformers' own model of the same folder."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xtremely.engine.models.heads import HEAD_KINDS, load_head
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

NLI = ("contradiction", "entailment", "neutral")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LABELS = {"sequence classification": NLI, "token classification": TAGS}
PACKED = {
    "bert": {},
    "xlm-roberta": {"type_vocab_size": 1},
    "modernbert-cls": {"classifier_pooling": "cls", "classifier_activation": "silu"},
    "modernbert-mean": {"classifier_pooling": "mean", "classifier_bias": True, "norm_bias": True},
    "deberta-v2": {"relative_attention": True, "pos_att_type": "c2p|p2c", "type_vocab_size": 2},
    "mpnet": {},
    "electra": {"embedding_size": 24},
    "distilbert": {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96},
    "rembert": {"input_embedding_size": 24},
    "xlm-roberta-xl": {"type_vocab_size": 1},
}
# Layers enough for both kinds of attention, windows shorter than the texts.
MODERN = {"num_hidden_layers": 4, "global_attn_every_n_layers": 3, "local_attention": 16}
PADDED = {
    "albert": {"embedding_size": 24},
    "gte": {},
    "eurobert-late": {"head_dim": 12, "num_key_value_heads": 2},
    "eurobert-bos": {"head_dim": 12, "num_key_value_heads": 2, "classifier_pooling": "bos"},
    "eurobert-mean": {"head_dim": 12, "num_key_value_heads": 2, "classifier_pooling": "mean"},
}
PAIRS = [  # transformers has no other heads of these
    *((family, kind) for family in ("albert",) for kind in HEAD_KINDS),
    *((family, kind) for family in PADDED for kind in LABELS if family[:3] in ("gte", "eur")),
]
TYPED = ("bert", "electra", "deberta-v2", "rembert", "albert")  # with two rows of token types
NOT = ("convbert", "multiple choice")  # a head of its own kind, which is refused


def headed(make_tiny, family, kind, **changes):
    """A tiny random model with a head, whose labels stand in another order than the task's."""
    model = re.sub("-(cls|mean|bos|late)$", "", family)
    settings = {**(PACKED | PADDED).get(family, {}), **(MODERN if model == "modernbert" else {})}
    names = {"id2label": dict(enumerate(LABELS[kind][::-1]))} if kind in LABELS else {}
    return make_tiny(model, f"AutoModel{HEAD_KINDS[kind]}", **{**settings, **names, **changes})


def outputs(engine, head, tokens):
    """The head's outputs in the order of the sequences, or of all of their tokens."""
    rows = [None] * len(tokens)

    def take(values, batch):
        per = batch.layout.lengths if len(values) == batch.tokens else [1] * len(values)
        for place, row in zip(batch.order.tolist(), values.cpu().split(list(per)), strict=True):
            rows[place] = row

    engine.predict(head, tokens, take)
    return rows


def theirs(folder, kind, tokens):
    """transformers' outputs, one sequence at a time: no padding to get wrong."""
    import transformers

    model = getattr(transformers, f"AutoModel{HEAD_KINDS[kind]}").from_pretrained(folder).eval()
    takes_types = folder.name not in ("distilbert", "mpnet", "modernbert", "eurobert")
    found = []
    for start, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
        inputs = {"input_ids": torch.from_numpy(tokens.ids[start:end].astype(np.int64))[None]}
        if takes_types:
            types = tokens.types[start:end].astype(np.int64)
            inputs["token_type_ids"] = torch.from_numpy(types)[None]
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if kind == "multiple choice":
            inputs = {name: value[None] for name, value in inputs.items()}
        with torch.inference_mode():
            got = model(**inputs)
        if kind == "question answering":
            found.append(torch.stack([got.start_logits[0], got.end_logits[0]], dim=1))
        else:
            found.append(got.logits[0] if got.logits.ndim == 3 else got.logits)
    return found


def assert_same(folder, kind, engine, tokens):
    if folder.name in TYPED:
        tokens = replace(tokens, types=(np.arange(len(tokens.ids)) % 3 == 0).astype(np.uint8))
    head = engine.head(kind, LABELS.get(kind, ()))
    for mine, other in zip(
        outputs(engine, head, tokens), theirs(folder, kind, tokens), strict=True
    ):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", HEAD_KINDS)
@pytest.mark.parametrize("family", PACKED)
def test_outputs_are_those_of_transformers(make_tiny, sentences, family, kind):
    folder = headed(make_tiny, family, kind)
    engine = Engine.load(str(folder), token_budget=300)
    assert engine.backend.implementation == "packed"
    pairs = engine.tokenizer.pairs(sentences, sentences[::-1])
    assert_same(folder, kind, engine, pairs)
    assert_same(folder, kind, engine, engine.tokenizer(sentences))


@pytest.mark.oracle
@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_outputs_on_encoders_that_run_padded(make_tiny, sentences, family, kind):
    folder = headed(make_tiny, family, kind)
    if family == "albert":  # a tokenizer that makes token types, as ALBERT's own does
        path = folder / "tokenizer_config.json"
        names = ["input_ids", "token_type_ids", "attention_mask"]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_input_names": names}))
    engine = Engine.load(str(folder), token_budget=300)
    assert engine.backend.implementation == "transformers"
    assert_same(folder, kind, engine, engine.tokenizer.pairs(sentences, sentences[::-1]))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["sequence classification", "question answering"])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "deberta-v2"])
def test_a_checkpoint_with_googles_names_of_norms_has_the_same_head(
    make_tiny, sentences, family, kind
):
    folder = headed(make_tiny, family, kind)
    path = folder / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, other in old.items():
            name = name.replace(new, other)
        tensors[name] = tensor
    assert any("gamma" in name for name in tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    engine = Engine.load(str(folder))
    assert_same(folder, kind, engine, engine.tokenizer(sentences[:6]))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["sequence classification", "multiple choice"])
def test_the_activation_of_a_deberta_head_is_the_configurations(make_tiny, sentences, kind):
    folder = headed(make_tiny, "deberta-v2", kind, pooler_hidden_act="tanh")
    engine = Engine.load(str(folder))
    assert_same(folder, kind, engine, engine.tokenizer(sentences[:6]))


def test_a_head_on_triton_gives_what_it_gives_on_torch(make_tiny):
    kind, few = "token classification", ["one two", "x", ""]
    shape = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    folder = headed(make_tiny, "bert", kind, **shape)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mine, others = (
        outputs(engine, engine.head(kind, TAGS), engine.tokenizer(few))
        for engine in (
            Engine.load(str(folder), backend=name, device=device) for name in ("triton", "torch")
        )
    )
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sequence classification", "token classification"])
def test_outputs_are_whole_after_a_batch_that_did_not_fit(make_tiny, sentences, kind):
    folder = headed(make_tiny, "bert", kind)
    engine = Engine.load(str(folder), token_budget=400)
    head, tokens = engine.head(kind, LABELS[kind]), engine.tokenizer(sentences)
    expected, forward = outputs(engine, head, tokens), engine.backend.hidden

    def small_device(batch, layers):
        if batch.tokens > 150:
            raise torch.OutOfMemoryError("tried to allocate")
        return forward(batch, layers)

    engine.backend.hidden = small_device
    with pytest.warns(UserWarning, match="out of device memory"):
        found = outputs(engine, head, tokens)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_work_and_progress_of_predictions_add_up(make_tiny, sentences):
    engine = Engine.load(str(headed(make_tiny, "bert", "question answering")), token_budget=300)
    head, tokens, seen = engine.head("question answering"), engine.tokenizer(sentences, 40), []
    work = engine.predict(head, tokens, lambda *_: None, lambda *step: seen.append(step))
    assert [sum(column) for column in zip(*seen, strict=True)] == [len(sentences), work.tokens]
    assert (work.sentences, work.tokens) == (len(sentences), tokens.lengths.sum())
    assert (work.computed_tokens, work.truncated) == (work.tokens, tokens.truncated)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_low_precision_stays_near_fp32(make_tiny, sentences, precision):
    kind = "sequence classification"
    folder = headed(make_tiny, "modernbert-mean", kind)
    exact, rough = (
        torch.cat(outputs(engine, engine.head(kind, NLI), engine.tokenizer(sentences)))
        for engine in (Engine.load(str(folder), precision=name) for name in ("fp32", precision))
    )
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.fixture(scope="module")
def sequence_folder(make_tiny):
    return headed(make_tiny, "xlm-roberta", "sequence classification")


@pytest.fixture
def folder(sequence_folder, tmp_path):
    """A copy of a folder with a sequence classification head that a test may damage."""
    return shutil.copytree(sequence_folder, tmp_path / "model")


def declare(folder, **changes):
    path = folder / "config.json"
    raw = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in raw.items() if value is not None}))


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def load(folder, kind="sequence classification", labels=NLI):
    backend = SimpleNamespace(width=48, device=torch.device("cpu"), precision="fp32")
    return load_head(folder, backend, kind, labels)


def test_labels_are_mapped_by_name_whatever_their_order_and_case(folder):
    assert load(folder).labels == ("neutral", "entailment", "contradiction")
    declare(folder, id2label={"1": "NEUTRAL", "0": "Entailment", "2": "contradiction"})
    assert load(folder).labels == ("entailment", "neutral", "contradiction")


def test_two_labels_that_transformers_leaves_out_are_unnamed(make_tiny):
    folder = make_tiny("bert", "AutoModelForSequenceClassification")
    assert "id2label" not in json.loads((folder / "config.json").read_text())
    assert load(folder, labels=None).labels == ("LABEL_0", "LABEL_1")
    declare(folder, num_labels=3)
    with pytest.raises(
        InputError, match=r"classifier.weight is \(2, 48\), config.json says \(3, 48"
    ):
        load(folder, labels=None)


def test_outputs_that_are_no_labels_have_none(make_tiny):
    folder = headed(make_tiny, "bert", "question answering")
    assert load(folder, "question answering", ()).labels == ()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}},
            "does not say what.*LABEL_0, LABEL_1, LABEL_2.*add an id2label.*contradiction, ent",
        ),
        (
            {"id2label": None, "label2id": None},
            r"outputs mean \(LABEL_0, LABEL_1\); add an id2label",
        ),
        ({"id2label": {"0": "yes", "1": "no"}}, "labels are yes, no; needed: contradiction, ent"),
        (
            {"id2label": {"0": "neutral", "1": "neutral", "2": "entailment"}},
            "labels are neutral, neutral, entailment; needed",
        ),
        ({"id2label": {"0": "neutral", "2": "entailment"}}, "no numbered list"),
        (
            {
                "id2label": {"0": "ENTAILMENT", "1": "neutral", "2": "contradiction"},
                "label2id": {"contradiction": 0, "neutral": 1, "entailment": 2},
            },
            "id2label and label2id in config.json disagree on ENTAILMENT, contradiction; correct",
        ),
        ({"id2label": ["neutral"]}, "'id2label' is \\['neutral'\\]; legal: an object"),
        (
            {"architectures": ["XLMRobertaForTokenClassification"]},
            "holds a token classification head.*a sequence classification head is needed",
        ),
        (
            {"architectures": ["XLMRobertaForMaskedLM"]},
            "holds an encoder without a task head.*XLMRobertaForMaskedLM",
        ),
        ({"architectures": None}, "architectures in config.json: none"),
    ],
    ids=str,
)
def test_a_head_that_is_not_the_tasks_is_refused(folder, changes, complaint):
    declare(folder, **changes)
    with pytest.raises(InputError, match=complaint):
        load(folder)


def test_a_kind_that_does_not_exist_is_refused(folder):
    with pytest.raises(InputError, match="unknown kind of head 'regression'; legal: multiple"):
        load(folder, "regression")


def test_a_missing_tensor_is_named(folder):
    change(folder, lambda tensors: tensors.pop("classifier.dense.bias"))
    with pytest.raises(InputError, match="the checkpoint's head lacks classifier.dense.bias"):
        load(folder)


def test_a_tensor_of_another_shape_is_named_with_both(folder):
    name = "classifier.out_proj.weight"
    change(folder, lambda tensors: tensors.update({name: tensors[name][:2].clone()}))
    with pytest.raises(InputError, match=r"out_proj.weight is \(2, 48\), config.json says \(3, 48"):
        load(folder)


def test_a_head_that_nobody_knows_is_refused(make_tiny):
    folder = headed(make_tiny, *NOT)
    known = "bert, xlm-roberta, roberta, camembert, distilbert, rembert, mpnet, xlm-roberta-xl"
    known += ", albert, modernbert, deberta-v2, electra"
    with pytest.raises(InputError, match=f"head of model type 'convbert' is not .*of {known} are$"):
        load(folder, "multiple choice", ())


@pytest.mark.parametrize("kind", ["sequence classification", "multiple choice"])
def test_distilberts_own_dense_layer_cuts_off_below_zero(make_tiny, kind):
    folder = headed(make_tiny, "distilbert", kind)
    stored = load_file(folder / "model.safetensors")
    stored["pre_classifier.weight"] *= 50  # far from zero, where activations differ most
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    engine = Engine.load(str(folder))
    tokens = engine.tokenizer.pairs(["one two", "three"], ["four", "five six"])
    first, _ = engine.pooled(tokens, layers=[engine.backend.layers], poolings=["cls"])
    dense = first[:, 0, 0] @ stored["pre_classifier.weight"].numpy().T
    dense = np.maximum(dense + stored["pre_classifier.bias"].numpy(), 0)
    logits = dense @ stored["classifier.weight"].numpy().T + stored["classifier.bias"].numpy()
    head = engine.head(kind, LABELS.get(kind, ())[::-1])  # in the file's order
    found = torch.stack(outputs(engine, head, tokens))
    np.testing.assert_allclose(found.reshape(logits.shape).numpy(), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.oracle
@pytest.mark.parametrize("dense", [True, False])
def test_an_electra_head_of_multiple_choice_is_the_configurations(make_tiny, sentences, dense):
    changes = {"summary_use_proj": dense, "summary_activation": "tanh" if dense else ""}
    folder = headed(make_tiny, "electra", "multiple choice", **changes)
    engine = Engine.load(str(folder))
    assert_same(folder, "multiple choice", engine, engine.tokenizer(sentences[:6]))


@pytest.mark.parametrize(
    ("family", "kind", "setting", "complaint"),
    [
        (
            "electra",
            "multiple choice",
            {"summary_type": "mean"},
            "config.json: summary_type 'mean' is not supported; legal: 'first'",
        ),
        (
            "eurobert-bos",
            "sequence classification",
            {"classifier_pooling": "cls"},
            "config.json: classifier_pooling 'cls' is not known; legal: bos, mean, late",
        ),
        (
            "modernbert-cls",
            "sequence classification",
            {"classifier_pooling": "max"},
            "classifier_pooling 'max' is not known; legal: mean, cls",
        ),
        (
            "modernbert-cls",
            "sequence classification",
            {"classifier_activation": "glu"},
            "unknown activation 'glu'",
        ),
        (
            "gte",
            "sequence classification",
            {"architectures": ["GteForQuestionAnswering"]},
            "the question answering head of model type 'gte' is not known; those of .* are",
        ),
    ],
    ids=["summary", "pooling", "modernbert pooling", "activation", "kind"],
)
def test_a_head_of_another_form_is_refused(make_tiny, tmp_path, family, kind, setting, complaint):
    folder = shutil.copytree(headed(make_tiny, family, kind), tmp_path / "model")
    declare(folder, **setting)
    kind = "question answering" if "architectures" in setting else kind
    with pytest.raises(InputError, match=complaint):
        load(folder, kind, NLI)
