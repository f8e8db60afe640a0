"""DeBERTa's packed encoder against transformers, over the settings of its configuration."""

import json
import shutil

import numpy as np
import pytest
import torch
from packed_states import batch_of, largest_difference
from safetensors.torch import load_file, save_file

from xtremely.engine.backends.select import open_backend
from xtremely.engine.models import deberta
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

CPU = torch.device("cpu")
# As in mDeBERTa, with fewer buckets, so that texts reach beyond those of one distance each.
MDEBERTA = {
    "pad_token_id": 0,
    "relative_attention": True,
    "pos_att_type": "p2c|c2p",
    "share_att_key": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "layer_norm_eps": 1e-7,
    "initializer_range": 0.05,
}
VARIANTS = {
    "as mdeberta": {},
    "own projections": {"share_att_key": False, "norm_rel_ebd": "none"},
    "absolute positions too": {"position_biased_input": True, "type_vocab_size": 2},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 20},
    "as far as positions": {"position_buckets": -1},
    "content to position": {"pos_att_type": ["c2p"], "share_att_key": False},
    "position to content": {"pos_att_type": ["p2c"], "share_att_key": False},
    "no terms": {"pos_att_type": None},
    "no relative positions": {"relative_attention": False, "position_biased_input": True},
    "narrow embeddings": {"embedding_size": 24, "type_vocab_size": 2},
}


def opened(folder, precision="fp32"):
    return open_backend(folder, "torch", CPU, precision)


@pytest.mark.oracle
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_layers_equal_transformers(make_tiny, variant):
    folder = make_tiny("deberta-v2", **{**MDEBERTA, **VARIANTS[variant]})
    backend = opened(folder)
    assert backend.implementation == "packed"
    assert largest_difference(folder, backend) < 3e-6


@pytest.mark.oracle
def test_buckets_are_those_of_transformers():
    """mDeBERTa's, and odd ones: at the borders a bit decides."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    for buckets, farthest in ((256, 512), (32, 512), (7, 100), (16, 9)):
        like = torch.zeros(1, farthest, 1)
        theirs = build_relative_position(like, like, buckets, farthest)[0]  # [i, j]
        rows = deberta.table_rows(farthest, buckets, farthest, CPU)
        at = torch.arange(farthest)
        ours = rows[at - at[:, None] + farthest - 1]
        assert torch.equal(ours, (theirs + buckets).clamp(0, 2 * buckets - 1))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_16_bits_stay_near_fp32(make_tiny, precision):
    folder = make_tiny("deberta-v2", **MDEBERTA)
    batch = batch_of(opened(folder))
    exact, rough = (opened(folder, one).hidden(batch, [3])[3] for one in ("fp32", precision))
    step = torch.finfo(rough.dtype).eps
    assert 0 < (rough.float() - exact).norm() / exact.norm() < 4 * step


def declared(folder, tmp_path, **changes):
    """A copy of a folder with changes in its config.json."""
    copy = shutil.copytree(folder, tmp_path / "model")
    raw = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(raw | changes))
    return copy


@pytest.fixture(scope="module")
def folder(make_tiny):
    return make_tiny("deberta-v2", **{**MDEBERTA, "share_att_key": False})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "tanh"}, "config.json: hidden_act 'tanh' is not one that packed encoders"),
        ({"conv_kernel_size": 3}, "config.json: conv_kernel_size 3 is not supported; the packed"),
    ],
    ids=["activation", "convolution"],
)
def test_settings_that_the_encoder_lacks_run_padded_and_are_named(make_tiny, changes, reason):
    folder = make_tiny("deberta-v2", **{**MDEBERTA, **changes})
    with pytest.warns(UserWarning, match=f"{reason}.*; transformers runs the model, padded"):
        backend = open_backend(folder, "auto", CPU, "fp32")
    assert backend.implementation == "transformers"
    assert largest_difference(folder, backend) < 3e-6
    for name in ("onnx", "triton"):
        with pytest.raises(InputError, match=reason):
            open_backend(folder, name, CPU, "fp32")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"position_buckets": 1},
            "'position_buckets' is 1, which gives some distances up to 130 no",
        ),
        ({"attention_head_size": 5}, "attention_head_size 5 is not supported; the packed .* 12"),
        ({"position_buckets": 12}, r"rel_embeddings.weight is \(32, 48\), config.json says \(24,"),
        ({"pos_att_type": 3}, "'pos_att_type' is 3"),
        ({"type_vocab_size": -2}, "'type_vocab_size' is -2; legal: "),
        ({"share_att_key": True}, "does not use encoder.layer.0.attention.self.pos_key_proj"),
        ({"relative_attention": False}, "does not use encoder.layer.0.*pos_query_proj"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_a_configuration_of_another_model_is_refused(folder, tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        opened(declared(folder, tmp_path, **changes))


@pytest.mark.parametrize(
    "name",
    [
        "encoder.rel_embeddings.weight",
        "encoder.LayerNorm.bias",
        "encoder.layer.1.attention.self.pos_query_proj.weight",
        "encoder.layer.2.attention.self.key_proj.bias",
    ],
)
def test_a_missing_tensor_is_named(folder, tmp_path, name):
    copy = declared(folder, tmp_path)
    stored = load_file(copy / "model.safetensors")
    stored.pop(name)
    save_file(stored, copy / "model.safetensors")
    with pytest.raises(InputError, match=f"lacks the tensors {name}"):
        opened(copy)


def test_parts_of_pretraining_and_an_unused_position_table_are_left_out(folder, tmp_path):
    """As in the published checkpoints of version 3."""
    copy = declared(folder, tmp_path)
    stored = load_file(copy / "model.safetensors")
    batch = batch_of(opened(copy))
    expected = opened(copy).hidden(batch, [3])[3]
    stored = {f"deberta.{name}": one for name, one in stored.items()}
    stored["deberta.embeddings.position_embeddings.weight"] = torch.ones(512, 48)
    for name in ("lm_predictions.lm_head", "mask_predictions"):
        stored[f"{name}.dense.weight"] = torch.ones(48, 48)
    save_file(stored, copy / "model.safetensors")
    assert torch.equal(opened(copy).hidden(batch, [3])[3], expected)


def test_texts_have_the_same_vectors_alone_and_in_company(folder, sentences):
    engine = Engine.load(str(folder), backend="torch")
    together = engine.embed(sentences)
    alone = np.concatenate([engine.embed([one]) for one in sentences[::5]])
    np.testing.assert_allclose(together[::5], alone, atol=2e-6)


def test_it_is_not_exported_in_fp16(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path))
    backend = open_backend(folder, "onnx", CPU, "fp16")
    with pytest.raises(InputError, match="'deberta-v2' is not exported in fp16; legal: fp32, int8"):
        backend.hidden(batch_of(backend), [0])
