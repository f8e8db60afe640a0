"""Reading the modules of sentence-transformers' folders, and refusing what does not run here."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stacks import save_stack

from xtremely.engine.adapters import SentenceEncoder
from xtremely.engine.hub.conventions import conventions
from xtremely.engine.hub.locate import folder_hash
from xtremely.engine.hub.stack import read_modules
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

KIND = "sentence_transformers.models."


def declare(folder, *kinds, **configs):
    """Write a modules.json, and the config.json of module folders called like their kinds."""
    listed = [
        {"type": KIND + kind, "path": "" if kind == "Transformer" else kind.lower()}
        for kind in kinds
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    for kind, config in configs.items():
        (folder / kind.lower()).mkdir(exist_ok=True)
        (folder / kind.lower() / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("config", "pooling", "plain"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",), True),
        ({"pooling_mode": "mean"}, ("mean",), True),
        ({"pooling_mode": ["cls"]}, ("cls",), True),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls"), False),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            ("cls", "mean"),
            False,
        ),
        (
            {"pooling_mode_lasttoken": True, "pooling_mode_max_tokens": True},
            ("max", "lasttoken"),
            False,
        ),
        ({"pooling_mode_mean_tokens": False}, ("mean",), True),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, ("cls",), True),
        ({"pooling_mode": "max"}, ("max",), False),
        ({"pooling_mode": "mean", "include_prompt": False}, ("mean",), False),
    ],
    ids=str,
)
def test_poolings_are_those_that_the_file_names_in_its_order(tmp_path, config, pooling, plain):
    declare(tmp_path, "Transformer", "Pooling", Pooling=config)
    found = conventions(tmp_path, "m")
    assert found.modules.pooling == pooling
    assert found.pooling == (pooling[0] if plain else "model")
    assert str(found.modules).startswith(f"Pooling({'+'.join(pooling)}")


def test_a_folder_without_a_list_of_modules_is_pooled_by_its_pooling_folder(tmp_path):
    declare(tmp_path, Pooling={"pooling_mode": "cls"})
    (tmp_path / "modules.json").unlink()
    assert conventions(tmp_path, "m").pooling == "mean"
    (tmp_path / "pooling").rename(tmp_path / "1_Pooling")
    assert conventions(tmp_path, "m").pooling == "cls"


def test_the_folder_of_a_module_is_the_one_in_the_list(tmp_path):
    for name in ("0_Pooling", "2_Pooling"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"pooling_mode": "mean"}')
    declare(tmp_path, "Transformer", "Pooling", Pooling={"pooling_mode": "cls"})
    assert conventions(tmp_path, "m").pooling == "cls"
    (tmp_path / "pooling" / "config.json").unlink()
    with pytest.raises(InputError, match="pooling/config.json: cannot be read"):
        conventions(tmp_path, "m")


DENSE = {"in_features": 48, "out_features": 8}


@pytest.mark.parametrize(
    ("kinds", "configs", "complaint"),
    [
        (["Transformer", "Pooling", "CNN"], {}, "module 'sentence_transformers.models.CNN' is not"),
        (
            ["Transformer", "WeightedLayerPooling", "Pooling"],
            {},
            "WeightedLayerPooling' is not run",
        ),
        (["Transformer", "Pooling", "LSTM"], {}, "LSTM' is not run here, .* legal: Transformer, P"),
        (["Router"], {}, "Router' is not run here"),
        (["Transformer", "Dense", "Pooling"], {}, "are Transformer, Dense, Pooling in this order"),
        (["Pooling"], {}, "the modules are Pooling in this order; legal: Transformer, Pooling, th"),
        (["Transformer", "Pooling", "Pooling"], {}, "Pooling, Pooling in this order"),
        ([], {}, "the modules are none in this order"),
        (
            ["Transformer", "Pooling"],
            {"Pooling": {"pooling_mode": "median"}},
            "'median'.*legal: cls",
        ),
        (["Transformer", "Pooling"], {"Pooling": {"pooling_mode": []}}, "'pooling_mode' is"),
        (
            ["Transformer", "Pooling"],
            {"Pooling": {"pooling_mode_sum": True}},
            "mode_sum'. is no poo",
        ),
        (
            ["Transformer", "Pooling", "Dense"],
            {"Dense": {"in_features": 4}},
            "out_features' is miss",
        ),
        (["Transformer", "Pooling", "Dense"], {"Dense": DENSE | {"bias": "no"}}, "'bias' is 'no'"),
        (
            ["Transformer", "Pooling", "Dense"],
            {"Dense": DENSE | {"activation_function": "my.activations.Tanh"}},
            "'activation_function' is 'my.activations.Tanh', which is not run here; legal: one",
        ),
        (
            ["Transformer", "Pooling", "Dense"],
            {"Dense": DENSE | {"activation_function": "torch.nn.modules.activation.Softmax"}},
            "Softmax', which is not run here",
        ),
        (
            ["Transformer", "Pooling", "Dense"],
            {"Dense": DENSE | {"module_input_name": "token_embeddings"}},
            "'module_input_name' is 'token_embeddings'",
        ),
        (
            ["Transformer", "Pooling", "Normalize"],
            {"Normalize": {"module_output_name": "unit"}},
            "'module_output_name' is 'unit'",
        ),
    ],
    ids=str,
)
def test_modules_that_do_not_run_here_are_refused(tmp_path, kinds, configs, complaint):
    declare(tmp_path, *kinds, **({"Pooling": {"pooling_mode": "mean"}} | configs))
    with pytest.raises(InputError, match=complaint) as said:
        conventions(tmp_path, "m")
    assert "\n" not in str(said.value) and str(tmp_path) in str(said.value)


def test_a_module_of_another_package_is_refused_whatever_its_name(tmp_path):
    declare(tmp_path, "Transformer", "Pooling", Pooling={"pooling_mode": "mean"})
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed[0]["type"] = "custom_st.Transformer"
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(InputError, match="module 'custom_st.Transformer' is not run here"):
        read_modules(tmp_path, None)


@pytest.fixture
def dense(tiny_bert, tmp_path):
    """A tiny model with cls pooling, a Dense module of 48 to 80, and Normalize."""
    return save_stack(tiny_bert, tmp_path / "model", "cls, Dense")


def change(folder, edit):
    path = folder / "2_Dense" / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda t: t.pop("linear.bias"), r"weights are linear.weight \[80, 48\], its config.json"),
        (lambda t: t.update({"residual.weight": torch.ones(2)}), "residual.weight"),
        (lambda t: t.update({"linear.bias": torch.ones(79)}), r"linear.bias \[79\]"),
        (lambda t: t["linear.weight"][3].fill_(float("nan")), "'linear.weight' holds NaN"),
        (lambda t: t["linear.weight"].zero_(), "'linear.weight' is all zeros"),
    ],
)
def test_weights_that_do_not_fit_are_refused_when_the_model_is_loaded(dense, edit, complaint):
    change(dense, edit)
    with pytest.raises(InputError, match=f"2_Dense.*{complaint}"):
        Engine.load(str(dense))


def test_widths_that_do_not_follow_each_other_are_refused(dense):
    path = dense / "1_Pooling" / "config.json"
    path.write_text('{"pooling_mode": ["cls", "mean"]}')
    with pytest.raises(InputError, match="'in_features' is 48, but the vectors before it are 96"):
        Engine.load(str(dense))


def test_pickled_weights_are_refused(dense):
    path = dense / "2_Dense" / "model.safetensors"
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
    with pytest.raises(
        InputError, match="2_Dense.*pytorch_model.bin: pickled weights, .*--allow-pickle"
    ):
        Engine.load(str(dense))


def test_a_folders_hash_sees_the_weights_of_its_modules(dense, tmp_path):
    other = shutil.copytree(dense, tmp_path / "other")
    assert folder_hash(other) == folder_hash(dense)
    change(other, lambda tensors: tensors["linear.bias"].add_(1))
    assert folder_hash(other) != folder_hash(dense)


TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
SETTINGS = {
    "layers": ({"config_args": {"num_hidden_layers": 1}}, "'config_args' sets num_hidden_layers,"),
    "layers, newer": ({"config_kwargs": {"num_hidden_layers": 1}}, "'config_kwargs' sets num_hid"),
    "length": ({"tokenizer_args": {"model_max_length": 9}}, "'tokenizer_args' sets model_max_len"),
    "side": ({"processor_kwargs": {"truncation_side": "left"}}, "'processor_kwargs' sets trunca"),
    "model": (
        {"model_kwargs": {"is_decoder": True}},
        "'model_kwargs' sets is_decoder, .*legal: at",
    ),
    "task": ({"transformer_task": "fill-mask"}, "'transformer_task' is 'fill-mask', .*legal: feat"),
    "output": (
        {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
        "'modality_config' is .*pooler_output.*legal: .*last_hidden_state",
    ),
    "chat": (
        {"modality_config": {"text": TEXT, "message": {**TEXT, "format": "flat"}}},
        "'modality_config' is .*'message'.*legal: .*last_hidden_state",
    ),
    "name": ({"module_output_name": "sentence_embedding"}, "'module_output_name' is 'sentence_emb"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_change_the_encoder_are_refused(tmp_path, case):
    declared, complaint = SETTINGS[case]
    declare(tmp_path, "Transformer", "Pooling", Pooling={"pooling_mode": "cls"})
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(declared))
    with pytest.raises(InputError, match=f"sentence_bert_config.json: {complaint}"):
        conventions(tmp_path, "m")


def test_settings_that_change_no_result_are_accepted(tmp_path):
    declared = {
        "max_seq_length": 9,
        "model_args": {"attn_implementation": "eager", "torch_dtype": "bfloat16"},
        "tokenizer_args": {"use_fast": True},
        "config_args": {},
        "transformer_task": "feature-extraction",
        "modality_config": {"text": TEXT, "image": {"method": "forward"}},
        "module_output_name": "token_embeddings",
    }
    declare(tmp_path, "Transformer", "Pooling", Pooling={"pooling_mode": "cls"})
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(declared))
    assert conventions(tmp_path, "m").max_length == 9


@pytest.mark.oracle
def test_a_model_that_puts_texts_into_a_chat_template_is_refused(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    chat = {"chat_template": "{% for one in messages %}user {{ one.content }}{% endfor %}"}
    path.write_text(json.dumps(json.loads(path.read_text()) | chat))
    library = pytest.importorskip("sentence_transformers")
    peer = library.SentenceTransformer(str(folder), device="cpu")
    states = peer.encode("Hello", output_value="token_embeddings")
    assert len(states) > len(peer.tokenizer("Hello")["input_ids"])
    peer.save(str(tmp_path / "saved"), create_model_card=False)
    with pytest.raises(InputError, match="'modality_config' is .*'message'"):
        Engine.load(str(tmp_path / "saved"))


@pytest.mark.oracle
def test_a_cross_encoder_embeds_as_sentence_transformers_makes_it_and_keeps_its_head(
    make_tiny, tmp_path
):
    library = pytest.importorskip("sentence_transformers")
    base = make_tiny("bert", "AutoModelForSequenceClassification", num_labels=3)
    library.CrossEncoder(str(base), device="cpu", prompts={"query": "q "}).save_pretrained(
        str(tmp_path), create_model_card=False
    )
    texts = ["Hello there", "all human beings"]
    expected = library.SentenceTransformer(str(tmp_path), device="cpu").encode(texts)
    engine = Engine.load(str(tmp_path), backend="torch")
    found = SentenceEncoder(engine).encode(texts)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(engine.embed(texts, normalize=False), found)
    assert engine.head("sequence classification", None).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "1_Pooling/config.json"])
def test_files_without_a_list_of_modules_are_followed_with_a_note(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.warns(UserWarning, match=f"has {name.split('/')[0]}, but no modules.json"):
        conventions(tmp_path, "m")
