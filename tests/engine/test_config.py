from pathlib import Path

import pytest

from xtremely.engine.config import encoder_config
from xtremely.kernels.guard import InputError

HERE = Path("model")
SIZES = {
    "model_type": "modernbert",
    "num_hidden_layers": 5,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
}
OLD = {
    **SIZES,
    "global_attn_every_n_layers": 2,
    "local_attention": 96,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 20000.0,
}
NEW = {
    **SIZES,
    "layer_types": ["full_attention", "sliding_attention"] * 2 + ["full_attention"],
    "local_attention": 96,
    "rope_parameters": {
        "full_attention": {"rope_theta": 160000.0, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 20000.0, "rope_type": "default"},
    },
}


@pytest.mark.parametrize("raw", [OLD, NEW], ids=["old", "new"])
def test_both_forms_of_a_modernbert_configuration_say_the_same(raw):
    config = encoder_config(raw, HERE)
    assert config.windows == (None, 48, None, 48, None)
    assert config.thetas == (160000.0, 20000.0, 160000.0, 20000.0, 160000.0)
    assert (config.max_length, config.vocabulary, config.intermediate) == (8192, 256000, 1152)
    assert not (config.attention_bias or config.mlp_bias or config.norm_bias)


def test_what_a_modernbert_configuration_leaves_out_is_as_in_transformers():
    config = encoder_config(SIZES, HERE)
    assert config.windows == (None, 64, 64, None, 64)
    assert config.thetas == (160000.0, 10000.0, 10000.0, 160000.0, 10000.0)
    assert config.eps == 1e-5


YARN = {"full_attention": {"rope_type": "yarn", "factor": 4.0}}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_activation": "silu"}, "hidden_activation 'silu' is not supported; .*'gelu'"),
        ({"rope_parameters": YARN}, "rope_type 'yarn' is not supported; .* knows 'default'"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling {'factor': 2} is not supported"),
        ({"local_rope_theta": None}, "'local_rope_theta' is None; legal: a valid number"),
        ({"layer_types": ["full_attention"] * 4}, "layer_types must name 5 layers, each one of"),
        ({"layer_types": ["chunked_attention"] * 5}, "each one of full_attention, sliding_att"),
        ({"global_attn_every_n_layers": 0}, "layers' is 0; legal: greater than or equal to 1"),
        ({"num_attention_heads": 7}, "hidden_size 768 is not a multiple of 7 heads"),
        ({"model_type": "modernbert-decoder"}, "'modernbert-decoder' is not one of bert, "),
    ],
)
def test_a_modernbert_the_encoder_cannot_follow_is_refused(changes, complaint):
    with pytest.raises(InputError, match=f"model/config.json: .*{complaint}"):
        encoder_config({**SIZES, **changes}, HERE)


def test_a_size_that_is_missing_is_named():
    raw = {name: value for name, value in SIZES.items() if name != "intermediate_size"}
    with pytest.raises(InputError, match="config.json: 'intermediate_size' is missing"):
        encoder_config(raw, HERE)
