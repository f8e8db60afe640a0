import json
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
import transformers

from xtremely.engine.backends import select
from xtremely.engine.backends.select import open_backend
from xtremely.engine.models.loading import load, longest
from xtremely.engine.runtime import Engine
from xtremely.files import documents
from xtremely.kernels import configurations
from xtremely.kernels.guard import InputError, UsageError

CPU = torch.device("cpu")


@pytest.mark.oracle
def test_another_architecture_runs_padded_through_transformers_and_says_so(make_tiny, sentences):
    from transformers import AutoModel, AutoTokenizer

    folder = make_tiny("ernie")
    engine = Engine.load(str(folder), token_budget=150)
    assert (engine.backend.name, engine.backend.implementation) == ("torch", "transformers")
    vectors, work = engine.sweep(sentences, layers=[0, 2], poolings=["mean", "cls"])
    assert 0 < work.padding_share < 1

    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    for row, text in enumerate(sentences):  # one at a time: no padding to get wrong
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=128)
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            states = model(**inputs, output_hidden_states=True).hidden_states
        for place, layer in enumerate([0, 2]):
            expected = np.stack([states[layer][0].mean(0), states[layer][0, 0]])
            np.testing.assert_allclose(vectors[row, place], expected, atol=2e-4)


def test_a_position_table_with_unused_rows_shortens_the_limit(make_tiny):
    engine = Engine.load(str(make_tiny("roberta-prelayernorm")))
    assert engine.backend.max_length == 130 - 2
    _, work = engine.sweep(["word " * 5000], layers=[3], poolings=["mean"])
    assert (work.tokens, work.truncated) == (128, 1)


def damaged(folder, tmp_path, change):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "model")
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors")
    return copy


WEIGHT = "encoder.layer.0.attention.self.query.weight"
DAMAGE = {
    "missing": (lambda t: t.pop(WEIGHT), "lacks"),
    "extra": (lambda t: t.update({"encoder.layer.9.a": t[WEIGHT].clone()}), "has, and the encoder"),
    "misshapen": (lambda t: t.update({WEIGHT: t[WEIGHT][:4].clone()}), "is .4, 48., config"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_padded_models_checkpoint_is_strict_too(make_tiny, tmp_path, damage):
    change, complaint = DAMAGE[damage]
    folder = damaged(make_tiny("ernie"), tmp_path, change)
    with pytest.raises(InputError, match=complaint):
        open_backend(folder, "auto", CPU, "fp32")


SMALL = {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}
PADDING_SENSITIVE = {
    "convbert": {"embedding_size": 48},
    "nystromformer": {"max_position_embeddings": 510},
    "fnet": {},
    "yoso": {},
    "big_bird": {  # sparse above 28 tokens
        "block_size": 4,
        "num_random_blocks": 1,
        "max_position_embeddings": 132,
    },
}


@pytest.mark.oracle
@pytest.mark.parametrize("kind", PADDING_SENSITIVE)
def test_a_texts_states_do_not_depend_on_the_padding_of_its_batch(make_tiny, sentences, kind):
    from transformers import AutoModel, AutoTokenizer

    folder = make_tiny(kind, **PADDING_SENSITIVE[kind])
    engine = Engine.load(str(folder))
    found = engine.embed(sentences[:12], normalize=False)
    assert engine.backend.alone == (kind != "ernie")
    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    for text, vector in zip(sentences, found, strict=False):
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():  # a copy, as a short text changes a BigBird for good
            expected = deepcopy(model)(**inputs).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, expected, atol=2e-5)


STACK = {"d_model": 48, "num_layers": 2, "num_heads": 4, "d_ff": 96, "d_kv": 12}


@pytest.mark.oracle
@pytest.mark.parametrize("whole", [False, True], ids=["encoder alone", "with its decoder"])
@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5"])
def test_the_encoder_of_a_t5_runs_without_its_decoder(make_tiny, sentences, kind, whole):
    from transformers import AutoModelForTextEncoding, AutoTokenizer

    folder = make_tiny(kind, "AutoModel" if whole else "AutoModelForTextEncoding", **STACK)
    engine = Engine.load(str(folder), token_budget=150)
    assert engine.backend.implementation == "transformers"
    model = AutoModelForTextEncoding.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = engine.embed(sentences[:9])
    for text, vector in zip(sentences, found, strict=False):
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            mean = model(**inputs).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
    with pytest.raises(InputError, match="'.*t5' is an encoder with a decoder; .* not trained"):
        load(transformers.AutoModel, folder, torch.float32)


LAYERS = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 48}
REFUSED = {
    "mbart": (LAYERS, "'mbart' is an encoder with a decoder; legal: encoders alone"),
    "m2m_100": (LAYERS, "'m2m_100' is an encoder with a decoder; legal: encoders alone"),
    "xmod": ({"languages": ["en_XX", "de_DE"]}, "'default_language' is .*one of .*en_XX, de_DE"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_encoder_of_texts_is_refused_for_what_it_is(make_tiny, kind):
    changes, complaint = REFUSED[kind]
    with pytest.raises(InputError, match=complaint) as said:
        open_backend(make_tiny(kind, **changes), "auto", CPU, "fp32")
    assert "\n" not in str(said.value)


def test_xlnet_is_refused_with_the_reason(tiny_bert, tmp_path):
    raw = json.loads((tiny_bert / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "model_type": "xlnet"}))
    for refusing in (longest, lambda folder: open_backend(folder, "auto", CPU, "fp32")):
        with pytest.raises(InputError, match="'xlnet' does not run: it pads texts on the left"):
            refusing(tmp_path)


POSITIONS = {"bert": 130, "xlm-roberta": 128, "mpnet": 128, "xmod": 128, "distilbert": 130}


@pytest.mark.parametrize("kind", POSITIONS)
def test_one_rule_says_how_long_a_text_may_be(make_tiny, kind):
    changes = {"xmod": {"default_language": "en_XX"}, "distilbert": SMALL}.get(kind, {})
    folder = make_tiny(kind, **changes)
    engine = Engine.load(str(folder))
    assert POSITIONS[kind] == longest(folder) == engine.backend.max_length
    _, work = engine.sweep(
        ["word " * 500], layers=[0], poolings=["mean"], max_length=longest(folder)
    )
    assert work.tokens == POSITIONS[kind]


def test_a_model_whose_configuration_says_more_than_a_head_has_needs_no_head(make_tiny):
    """MobileBERT's classifier_activation is a truth value, ModernBERT's a name."""
    sizes = {"embedding_size": 48, "intra_bottleneck_size": 24, "true_hidden_size": 24}
    folder = make_tiny("mobilebert", **sizes)
    assert Engine.load(str(folder)).embed(["x"]).shape == (1, 48)


def test_a_padded_models_truncated_file_is_named(make_tiny):
    folder = make_tiny("ernie")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="model.safetensors: unreadable or truncated"):
        open_backend(folder, "auto", CPU, "fp32")


def test_a_decoder_is_refused(make_tiny):
    folder = make_tiny("gpt2", n_embd=48, n_layer=2, n_head=4, n_positions=64)
    with pytest.raises(InputError, match="'gpt2' is a decoder, as.*; only encoders run"):
        open_backend(folder, "auto", CPU, "fp32")


def test_an_unknown_model_type_is_refused_with_what_would_do(tiny_bert, tmp_path):
    raw = json.loads((tiny_bert / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "model_type": "brandnew"}))
    with pytest.raises(InputError, match="'brandnew' is unknown here.*packed encoder runs bert"):
        open_backend(tmp_path, "auto", CPU, "fp32")


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no config.json here"):
        open_backend(tmp_path, "auto", CPU, "fp32")


@pytest.mark.parametrize(
    ("name", "precision", "complaint"),
    [("cuda", "fp32", "backend 'cuda' is not known"), ("torch", "int3", "'int3' is not known")],
)
def test_a_name_that_does_not_exist_is_refused(tiny_bert, name, precision, complaint):
    with pytest.raises(UsageError, match=complaint):
        open_backend(tiny_bert, name, CPU, precision)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_low_precision_stays_near_fp32(tiny_bert, sentences, precision):
    exact = Engine.load(str(tiny_bert)).embed(sentences)
    rough = Engine.load(str(tiny_bert), precision=precision).embed(sentences)
    assert (exact * rough).sum(axis=1).min() > 0.999
    assert not np.array_equal(exact, rough)


@pytest.mark.parametrize(
    ("device", "architecture", "precision", "heads", "chosen"),
    [
        ("cuda", "sm_90", "bf16", 2, "triton"),
        ("cuda", "sm_90", "fp8", 2, "triton"),
        ("cuda", "sm_90", "fp32", 2, "torch"),
        ("cuda", "sm_90", "bf16", 4, "torch"),  # heads of 16 dimensions: no kernel takes them
        ("cuda", "sm_00", "bf16", 2, "torch"),  # no such GPU has been measured
        ("cpu", "sm_90", "bf16", 2, "torch"),
    ],
)
def test_auto_takes_the_kernels_where_they_have_been_measured(
    make_tiny, monkeypatch, device, architecture, precision, heads, chosen
):
    folder = make_tiny("bert", hidden_size=64, num_attention_heads=heads)
    monkeypatch.setattr(select, "architecture", lambda device: architecture)
    monkeypatch.setattr(select, "Packed", lambda folder, config, name, *_: name)
    assert open_backend(folder, "auto", torch.device(device), precision) == chosen


@pytest.mark.parametrize("kind", ["deberta-v2", "mpnet", "bert"])
def test_auto_waits_for_a_measurement_of_the_kernel_of_the_models_attention(
    make_tiny, tmp_path, monkeypatch, kind
):
    folder = shutil.copytree(
        make_tiny(kind, hidden_size=64, num_attention_heads=2), tmp_path / "model"
    )
    if kind == "bert":
        raw = json.loads((folder / "config.json").read_text())
        raw["position_embedding_type"] = "relative_key"
        (folder / "config.json").write_text(json.dumps(raw))
    table = {"attention": {"sm_00": {}}}
    monkeypatch.setattr(configurations, "read_table", lambda: table)
    monkeypatch.setattr(select, "architecture", lambda device: "sm_00")
    monkeypatch.setattr(select, "Packed", lambda folder, config, name, *_: name)
    assert open_backend(folder, "auto", torch.device("cuda"), "bf16") == "torch"
    table["relative_attention"] = {"sm_00": {}}
    assert open_backend(folder, "auto", torch.device("cuda"), "bf16") == "triton"


@pytest.mark.parametrize(("backend", "precision"), [("auto", "fp32"), ("torch", "bf16")])
def test_a_backend_reads_the_configuration_once(tiny_bert, monkeypatch, backend, precision):
    read, real = [], documents.read_json

    def counted(path, *rest):
        read.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(documents, "read_json", counted)
    open_backend(tiny_bert, backend, CPU, precision)
    assert read.count("config.json") == 1
