"""Adapters of PEFT: where they may be, what is kept of them, and what is refused."""

import json
import shutil
import sys

import huggingface_hub
import numpy as np
import peft
import pytest
import torch
import transformers
from adapted import TEXTS, WEIGHTS, adapt, lora
from safetensors.torch import load_file, save_file

from xtremely.engine.adapters import SentenceEncoder
from xtremely.engine.hub import bundled
from xtremely.engine.hub.locate import locate
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

pytestmark = pytest.mark.usefixtures("cache")


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
