import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from xtremely.engine.backends.select import open_backend
from xtremely.engine.models import modernbert
from xtremely.kernels.guard import InputError

QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture
def folder(tiny_bert, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(tiny_bert, tmp_path / "model")


def change(folder, edit):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def load(folder):
    return open_backend(folder, "torch", torch.device("cpu"), "fp32")


def test_a_missing_tensor_is_an_error_that_names_it(folder):
    change(folder, lambda tensors: tensors.pop(QUERY))
    with pytest.raises(InputError, match=f"lacks the tensors {QUERY}"):
        load(folder)


def test_a_checkpoint_without_a_word_table_is_an_error_that_says_so(folder):
    change(folder, lambda tensors: tensors.pop("embeddings.word_embeddings.weight"))
    with pytest.raises(InputError, match="no tensor named .*embeddings.word_embeddings.weight"):
        load(folder)


def test_an_extra_tensor_is_an_error_that_names_it(folder):
    change(folder, lambda t: t.update({"encoder.layer.3.adapter.weight": t[QUERY].clone()}))
    with pytest.raises(InputError, match=r"does not use encoder\.layer\.3\.adapter"):
        load(folder)


def test_a_tensor_of_another_shape_is_an_error_that_names_both(folder):
    change(folder, lambda tensors: tensors.update({QUERY: tensors[QUERY][:40].clone()}))
    with pytest.raises(InputError, match=r"query.weight is \(40, 48\), config.json says \(48,"):
        load(folder)


def test_weights_in_several_files_load_through_their_index(folder):
    whole = load(folder).encoder.state_dict()
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    again = load(folder).encoder.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_an_index_cannot_name_files_outside_the_folder(folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {QUERY: "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="is not a file of this folder"):
        load(folder)


def test_a_truncated_file_is_an_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="unreadable or truncated"):
        load(folder)


def test_pickled_weights_are_refused_with_the_remedy(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights are read with --allow"):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("position_embedding_type", "rotary", "'rotary'; legal: absolute, relative_key, relative_"),
        ("is_decoder", True, "'is_decoder' is True, .*; only encoders run; legal: false"),
        ("num_hidden_layers", "three", "'num_hidden_layers' is 'three'; legal: a valid integer"),
        (
            "hidden_size",
            10**9,
            "wrong shape: embeddings.word_embeddings.weight is .2000, 48., config",
        ),
        ("num_attention_heads", 5, "hidden_size 48 is not a multiple of 5 heads"),
    ],
)
def test_a_configuration_the_encoder_cannot_follow_is_refused(folder, key, value, complaint):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError, match=complaint):
        load(folder)


@pytest.fixture
def modern(make_tiny):
    """A tiny ModernBERT that a test may damage."""
    return make_tiny("modernbert", local_attention=20)


MODERN_DAMAGE = {
    "missing": (
        lambda t: t.pop("layers.1.attn_norm.weight"),
        r"lacks the tensors layers\.1\.attn_n",
    ),
    "last norm": (lambda t: t.pop("final_norm.weight"), r"lacks the tensors final_norm\.weight"),
    "words": (
        lambda t: t.pop(modernbert.WORDS),
        "no tensor named .*embeddings.tok_embeddings.weight",
    ),
    "extra": (
        lambda t: t.update({"layers.0.attn_norm.weight": torch.ones(48)}),
        r"does not use layers\.0\.attn_norm\.weight",
    ),
    "a bias that is switched off": (
        lambda t: t.update({"layers.2.mlp.Wo.bias": torch.ones(48)}),
        r"does not use layers\.2\.mlp\.Wo\.bias",
    ),
    "misshapen": (
        lambda t: t.update({"layers.0.mlp.Wi.weight": torch.ones(96, 48)}),
        r"Wi.weight is \(96, 48\), config.json says \(192, 48\)",
    ),
}


@pytest.mark.parametrize("damage", MODERN_DAMAGE)
def test_a_modernbert_checkpoint_is_strict_too(modern, damage):
    edit, complaint = MODERN_DAMAGE[damage]
    change(modern, edit)
    with pytest.raises(InputError, match=complaint):
        load(modern)


def test_a_broken_configuration_file_is_named(folder):
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(InputError, match=r"config.json:1: broken JSON"):
        load(folder)


@pytest.mark.parametrize("name", ["encoder.layer.0.classifier.weight", "encoder.cls.weight"])
def test_a_heads_name_inside_the_encoder_is_no_head(folder, name):
    change(folder, lambda tensors: tensors.update({name: torch.ones(4, 4)}))
    with pytest.raises(InputError, match=f"does not use {name}"):
        load(folder)


def test_names_with_and_without_a_prefix_are_not_mixed(folder):
    words = "embeddings.word_embeddings.weight"
    change(folder, lambda tensors: tensors.update({f"bert.{words}": tensors[words].clone()}))
    with pytest.raises(InputError, match=f"'{words}' is there twice, as bert.{words} and"):
        load(folder)


def test_norms_under_their_old_names_are_the_same_norms(folder):
    before = {name: one.clone() for name, one in load(folder).encoder.state_dict().items()}

    def rename(tensors):
        for name in [name for name in tensors if "LayerNorm" in name]:
            old = name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
            tensors[old] = tensors.pop(name)

    change(folder, rename)
    for name, one in load(folder).encoder.state_dict().items():
        torch.testing.assert_close(one, before[name], rtol=0, atol=0)


def test_an_adapter_beside_its_model_is_not_left_out_silently(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match="adapter_config.json: adapters.*are not applied; merge"):
        load(folder)


def test_an_encoder_in_a_folder_of_its_own_is_named(folder):
    (folder / "0_Transformer").mkdir()
    (folder / "config.json").rename(folder / "0_Transformer" / "config.json")
    with pytest.raises(InputError, match="no config.json here, but one in 0_Transformer"):
        load(folder)
