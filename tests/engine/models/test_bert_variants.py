"""DistilBERT, ELECTRA, RemBERT, MPNet and XLM-R XL on packed batches against transformers."""

import json
import shutil

import pytest
import torch
from packed_states import batch_of, largest_difference
from safetensors.torch import load_file, save_file

from xtremely.engine.backends.select import open_backend
from xtremely.engine.config_json import position_offset
from xtremely.engine.models import mpnet
from xtremely.kernels.guard import InputError

CPU = torch.device("cpu")
DISTILBERT = {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 96}
VARIANTS = {
    "distilbert": ("distilbert", DISTILBERT),
    "electra": ("electra", {"embedding_size": 24}),
    "electra of one width": ("electra", {"embedding_size": 48, "type_vocab_size": 1}),
    "rembert": ("rembert", {"input_embedding_size": 24}),
    "rembert of one width": ("rembert", {"input_embedding_size": 48}),
    "mpnet": ("mpnet", {}),
    "xlm-roberta-xl": ("xlm-roberta-xl", {}),
    "xlm-roberta-xl with types": ("xlm-roberta-xl", {"type_vocab_size": 2, "pad_token_id": 3}),
    "mpnet of more buckets": ("mpnet", {"relative_attention_num_buckets": 40, "pad_token_id": 0}),
}


def opened(folder, precision="fp32"):
    return open_backend(folder, "torch", CPU, precision)


@pytest.mark.oracle
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_layers_equal_transformers(make_tiny, variant):
    kind, settings = VARIANTS[variant]
    folder = make_tiny(kind, initializer_range=0.05, **settings)
    backend = opened(folder)
    assert backend.implementation == "packed"
    assert largest_difference(folder, backend) < 3e-6


@pytest.mark.oracle
def test_mpnets_buckets_are_those_of_transformers():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(-511, 512)
    expected = MPNetEncoder.relative_position_bucket(distances)
    assert torch.equal(mpnet.table_rows(512, CPU), expected)


def test_mpnet_counts_positions_from_2_whatever_its_padding_id(make_tiny):
    assert opened(make_tiny("mpnet", pad_token_id=0)).max_length == 128
    assert [position_offset("mpnet", pad) for pad in (None, 0, 7)] == [2, 2, 2]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["electra", "mpnet"])
def test_16_bits_stay_near_fp32(make_tiny, kind, precision):
    folder = make_tiny(kind, initializer_range=0.05, **VARIANTS[kind][1])
    batch = batch_of(opened(folder))
    exact, rough = (opened(folder, one).hidden(batch, [3])[3] for one in ("fp32", precision))
    step = torch.finfo(rough.dtype).eps
    assert 0 < (rough.float() - exact).norm() / exact.norm() < 4 * step


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("distilbert", {"activation": "relu"}),
        ("electra", {"hidden_act": "relu"}),
        ("rembert", {"hidden_act": "gelu_new"}),
        ("mpnet", {"hidden_act": "silu"}),
        ("deberta-v2", {"hidden_act": "relu"}),
    ],
)
def test_another_activation_runs_packed(make_tiny, kind, changes):
    base = VARIANTS[kind][1] if kind in VARIANTS else {}
    folder = make_tiny(kind, initializer_range=0.05, **base, **changes)
    backend = opened(folder)
    assert backend.implementation == "packed"
    assert largest_difference(folder, backend) < 3e-6


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("distilbert", {"activation": "gelu_10"}, "activation 'gelu_10' is not one that packed"),
        ("electra", {"hidden_act": "tanh"}, "hidden_act 'tanh' is not one that packed encoders"),
        ("mpnet", {"hidden_act": "mish"}, "hidden_act 'mish' is not one that packed encoders"),
        ("xlm-roberta-xl", {"hidden_act": "relu"}, "the packed encoder knows 'gelu'"),
    ],
)
def test_an_activation_without_packed_form_runs_padded_and_is_named(
    make_tiny, kind, changes, reason
):
    folder = make_tiny(kind, **VARIANTS[kind][1], **changes)
    with pytest.warns(UserWarning, match=f"{reason}.*; transformers runs the model, padded"):
        backend = open_backend(folder, "auto", CPU, "fp32")
    assert backend.implementation == "transformers"


@pytest.fixture
def edited(make_tiny, tmp_path):
    """Makes a tiny model and changes its config.json and its tensors."""

    def edited(kind, changes, edit=lambda tensors: None):
        made = make_tiny(kind, **VARIANTS[kind][1])
        folder = shutil.copytree(made, tmp_path / "model")
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | changes))
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return edited


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        ("mpnet", {"relative_attention_num_buckets": 16}, "is 16; legal: 32 or more, as distances"),
        ("mpnet", {"max_position_embeddings": 2}, "is 2; legal: more than 2, as the first 2"),
        ("electra", {"is_decoder": True}, "is_decoder True is not supported"),
        ("electra", {"position_embedding_type": "relative_key"}, "'relative_key' is not supported"),
        ("electra", {"embedding_size": 32}, r"weight is \(2000, 24\), config.json says \(2000, 32"),
        ("rembert", {"input_embedding_size": 48}, r"weight is \(2000, 24\), config.json says"),
        ("distilbert", {"dim": None}, "'dim' is None"),
        ("distilbert", {"n_layers": 2}, "does not use transformer.layer.2.attention.k_lin.bias"),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, dict) else None,
)
def test_a_configuration_of_another_model_is_refused(edited, kind, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        opened(edited(kind, changes))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("mpnet", "encoder.relative_attention_bias.weight"),
        ("xlm-roberta-xl", "encoder.LayerNorm.bias"),
        ("xlm-roberta-xl", "encoder.layer.0.attention.self_attn_layer_norm.weight"),
        ("electra", "embeddings_project.bias"),
        ("rembert", "encoder.embedding_hidden_mapping_in.weight"),
        ("distilbert", "transformer.layer.1.sa_layer_norm.weight"),
    ],
)
def test_a_missing_tensor_is_named(edited, kind, name):
    with pytest.raises(InputError, match=f"lacks the tensors {name}"):
        opened(edited(kind, {}, lambda tensors: tensors.pop(name)))
