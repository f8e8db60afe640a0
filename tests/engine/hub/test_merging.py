"""Adapters of PEFT: merged at loading, equal to PEFT's own unmerged model, or refused."""

import json
import shutil
import sys

import huggingface_hub
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from xtremely.engine.adapters import SentenceEncoder
from xtremely.engine.hub import bundled
from xtremely.engine.hub.locate import locate
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

TEXTS = ["Hello there", "人人生而自由", "all human beings are born free", "x", ""]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def adapt(base, folder, settings, auto="AutoModel", rows=None, **labels):
    """Save a random adapter for a model, and return PEFT's own unmerged model."""
    model = getattr(transformers, auto).from_pretrained(base, **labels)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    adapted = peft.get_peft_model(model, settings)
    for one in adapted.parameters():
        if one.requires_grad:
            one.data += 0.1 * torch.randn_like(one)
    adapted.save_pretrained(folder)
    return adapted.eval()


@torch.no_grad()
def outputs(model, folder, texts=TEXTS):
    """What PEFT's model gives for every text alone, with the folder's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [model(tokenizer(text, return_tensors="pt")["input_ids"])[0][0] for text in texts]


def means(states):
    vectors = torch.stack([one.mean(dim=0) for one in states])
    return torch.nn.functional.normalize(vectors, dim=1).numpy()


def lora(**settings):
    return peft.LoraConfig(r=4, lora_alpha=16, lora_dropout=0.1, **settings)


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


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES)
def test_vectors_equal_those_of_the_unmerged_model(case, make_tiny, tmp_path):
    kind, changes, settings = CASES[case]
    base = make_tiny(kind, **changes)
    adapted = adapt(base, tmp_path / "a", settings())
    plain = Engine.load(str(base), backend="torch").embed(TEXTS)
    engine = Engine.load(str(tmp_path / "a"), backend="torch")
    found, expected = engine.embed(TEXTS), means(outputs(adapted, base))
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7)
    assert np.abs(found - plain).max() > 1e-3
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
    expected = means(outputs(adapted, tmp_path / "a", texts))
    np.testing.assert_allclose(engine.embed(texts), expected, rtol=0, atol=5e-7)
    assert load_file(engine.folder / "model.safetensors")[
        "embeddings.word_embeddings.weight"
    ].shape == (2003, 48)


@pytest.fixture(scope="module")
def made(make_tiny, tmp_path_factory):
    """A base model and an adapter for it."""
    base = make_tiny("bert")
    folder = tmp_path_factory.mktemp("adapter") / "a"
    adapted = adapt(base, folder, lora(target_modules=["query"], task_type="FEATURE_EXTRACTION"))
    return base, folder, adapted


@pytest.fixture
def adapter(made, tmp_path):
    """A copy of the adapter that a test may change."""
    return shutil.copytree(made[1], tmp_path / "copy")


def declare(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.oracle
def test_a_stack_of_sentence_transformers_may_hold_an_adapter(made, adapter):
    library = pytest.importorskip("sentence_transformers")
    transformers.AutoTokenizer.from_pretrained(made[0]).save_pretrained(adapter)
    (adapter / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    pooling = {"pooling_mode": "cls", "embedding_dimension": 48}
    (adapter / "1_Pooling").mkdir()
    (adapter / "1_Pooling" / "config.json").write_text(json.dumps(pooling))

    def listed(path):
        kind = "sentence_transformers.models."
        modules = [{"idx": 0, "name": "0", "path": path, "type": f"{kind}Transformer"}]
        modules += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}Pooling"}]
        (adapter / "modules.json").write_text(json.dumps(modules))

    listed("")
    expected = library.SentenceTransformer(str(adapter), device="cpu").encode(TEXTS)
    engine = Engine.load(str(adapter), backend="torch")
    assert (engine.max_length, engine.conventions.pooling) == (7, "cls")
    found = SentenceEncoder(engine).encode(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    inner = adapter / "0_Transformer"  # which sentence-transformers itself cannot read
    inner.mkdir()
    for path in [path for path in adapter.iterdir() if path.is_file()]:
        path.rename(inner / path.name)
    listed("0_Transformer")
    again = SentenceEncoder(Engine.load(str(adapter), backend="torch")).encode(TEXTS)
    np.testing.assert_array_equal(again, found)


def test_a_pickled_adapter_is_read_when_that_is_allowed(made, adapter):
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    with pytest.raises(InputError, match="adapter_model.bin: pickled weights.* --allow-pickle"):
        locate(str(adapter))
    found = locate(str(adapter), allow_pickle=True)
    expected = load_file(locate(str(made[1])) / "model.safetensors")
    for name, one in load_file(found / "model.safetensors").items():
        torch.testing.assert_close(one, expected[name], rtol=0, atol=0)


def test_an_adapter_is_merged_again_only_when_it_or_its_base_changes(made, adapter, monkeypatch):
    base = shutil.copytree(made[0], adapter.parent / "base")
    declare(adapter, base_model_name_or_path=str(base))
    first = locate(str(adapter))
    with monkeypatch.context() as patched:
        patched.setattr(peft, "PeftModel", None)
        assert locate(str(adapter)) == first
    for path, name in ((adapter / WEIGHTS, "lora_A"), (base / "model.safetensors", "query.weight")):
        tensors = load_file(path)
        changed = next(one for name_, one in tensors.items() if name in name_)
        changed += 1
        save_file(tensors, path, metadata={"format": "pt"})
        second = locate(str(adapter))
        assert second != first
        first = second


def test_adapter_and_base_may_be_on_the_hub(made, adapter, monkeypatch):
    declare(adapter, base_model_name_or_path="owner/base", revision="v2")
    places, asked = {"owner/adapter": adapter, "owner/base": made[0]}, []

    def download(name, revision, allow_patterns):
        asked.append((name, revision))
        return str(places[name])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = Engine.load("owner/adapter", backend="torch").embed(TEXTS)
    np.testing.assert_array_equal(found, Engine.load(str(made[1]), backend="torch").embed(TEXTS))
    assert asked == [("owner/adapter", None), ("owner/base", "v2")]


def test_a_packaged_model_may_be_the_base(made, adapter, monkeypatch):
    declare(adapter, base_model_name_or_path="e5-small-4bit")
    monkeypatch.setattr(bundled, "unpack", lambda name, cache: made[0])
    found = Engine.load(str(adapter), backend="torch").embed(TEXTS)
    np.testing.assert_array_equal(found, Engine.load(str(made[1]), backend="torch").embed(TEXTS))


def test_modules_of_the_base_alone_are_not_used_and_that_is_said(made, adapter):
    base = shutil.copytree(made[0], adapter.parent / "base")
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    listed = [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in kinds.items()
    ]
    (base / "modules.json").write_text(json.dumps(listed))
    declare(adapter, base_model_name_or_path=str(base))
    with pytest.warns(UserWarning, match="without modules.json.*base model's modules.*not used"):
        engine = Engine.load(str(adapter), backend="torch")
    assert engine.conventions.pooling == "mean"


def nothing(folder):
    """The adapter as it is."""


def no_weights(folder):
    (folder / WEIGHTS).unlink()


def cut(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def change(damage):
    def changed(folder):
        tensors = load_file(folder / WEIGHTS)
        damage(tensors)
        save_file(tensors, folder / WEIGHTS)

    return changed


def first(tensors, part):
    return next(name for name in tensors if part in name)


def endless(tensors):
    tensors[first(tensors, "lora_A")][0, 0] = torch.nan


def lacking(tensors):
    del tensors[first(tensors, "lora_B")]


def other(tensors):
    tensors["base_model.model.encoder.layer.9.attention.self.query.lora_A.weight"] = torch.ones(1)


def misshapen(tensors):
    name = first(tensors, "lora_A")
    tensors[name] = torch.ones(4, 50)


REFUSED = {
    "no weights": (no_weights, {}, "adapter_model.safetensors: no such file"),
    "cut off": (cut, {}, "adapter_model.safetensors: unreadable or truncated"),
    "NaN": (change(endless), {}, "lora_A.weight'. holds NaN or infinity"),
    "a tensor too few": (change(lacking), {}, "the adapter lacks .*lora_B.*do not belong together"),
    "a tensor too many": (change(other), {}, "the adapter has .*layer.9.*do not belong together"),
    "another width": (change(misshapen), {}, "cannot apply the adapter to its base model.*size mi"),
    "no base": (nothing, {"base_model_name_or_path": None}, "'base_model_name_or_path' is missing"),
    "a base that is missing": (
        nothing,
        {"base_model_name_or_path": "/nowhere/at/all"},
        "adapter_config.json: the adapter's base model is not found .*there is no such folder",
    ),
    "its own base": (nothing, {"base_model_name_or_path": "."}, "has an adapter in its own folder"),
    "prompt tuning": (nothing, {"peft_type": "PROMPT_TUNING"}, "'PROMPT_TUNING' cannot be merged"),
    "an unknown type": (nothing, {"peft_type": "MAGIC"}, "'MAGIC' cannot be merged.*LORA"),
    "another task": (nothing, {"task_type": "CAUSAL_LM"}, "task_type is 'CAUSAL_LM'; legal: FEAT"),
    "another class": (
        nothing,
        {"task_type": None, "auto_mapping": {"base_model_class": "BertForPreTraining"}},
        "the class 'BertForPreTraining', which does not run here",
    ),
    "a newer setting": (nothing, {"use_magic": True}, "peft does not know use_magic; inst"),
    "a setting of another type": (nothing, {"r": "four"}, "PEFT cannot|cannot apply the adapter"),
    "other modules": (nothing, {"target_modules": ["q_proj"]}, "cannot apply the adapter"),
    "no object": (lambda f: (f / "adapter_config.json").write_text("[]"), {}, "adapter_config.j"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_cannot_be_merged_is_refused(case, adapter, cache, monkeypatch):
    damage, changes, complaint = REFUSED[case]
    monkeypatch.chdir(adapter)
    if changes:
        declare(adapter, **changes)
    damage(adapter)
    with pytest.raises(InputError, match=complaint) as said:
        locate(str(adapter))
    assert "\n" not in str(said.value) and str(adapter) in str(said.value)
    assert not [path for path in cache.rglob("*") if path.is_dir() and path.name != "converted"]


def test_a_base_of_another_shape_is_refused(adapter, make_tiny):
    declare(adapter, base_model_name_or_path=str(make_tiny("bert", hidden_size=32)))
    with pytest.raises(InputError, match="cannot apply the adapter to its base model.*size mismat"):
        locate(str(adapter))
    declare(adapter, base_model_name_or_path=str(make_tiny("bert", num_hidden_layers=2)))
    with pytest.raises(InputError, match="the adapter has .*layer.2.*do not belong together"):
        locate(str(adapter))


def test_an_adapter_whose_merging_changes_results_is_refused(adapter, monkeypatch):
    def wrong(self, safe_merge):
        model = self.unload()
        model.embeddings.word_embeddings.weight.data *= 2
        return model

    monkeypatch.setattr(peft.LoraModel, "merge_and_unload", wrong)
    with pytest.raises(InputError, match="type 'LORA' gives other results"):
        locate(str(adapter))


def test_without_the_package_the_extra_is_named(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"adapter_config.json: .*pip install 'xtremely\[peft\]'"):
        locate(str(adapter))
