from pathlib import Path

import pytest

from xtremely.engine.models.families import encoder_config
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
        ({"hidden_activation": "mish"}, "hidden_activation 'mish' is not one that packed encod"),
        ({"rope_parameters": YARN}, "rope_type 'yarn' of rope_parameters is not packed"),
        ({"sliding_window": 4}, "sliding_window 4 is not supported; .* knows 64"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling {'factor': 2} is not one that is"),
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


BERT = {
    "model_type": "bert",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 100,
    "max_position_embeddings": 50,
}


def test_what_a_bert_configuration_leaves_out_is_as_in_transformers():
    import transformers

    for kind in ("bert", "xlm-roberta"):
        config = encoder_config({**BERT, "model_type": kind}, HERE)
        theirs = transformers.AutoConfig.for_model(kind)
        assert (config.eps, config.types, config.pad_id) == (
            theirs.layer_norm_eps,
            theirs.type_vocab_size,
            theirs.pad_token_id,
        )
        assert config.max_length == (50 if kind == "bert" else 50 - theirs.pad_token_id - 1)


FIELDS = [(raw, field) for raw in (BERT, SIZES) for field in raw if field != "model_type"]
FIELDS.append((BERT, "type_vocab_size"))


@pytest.mark.parametrize("value", [0, -1, True, "2", 2.5, None, [2], 10**30], ids=str)
@pytest.mark.parametrize(("raw", "field"), FIELDS, ids=lambda one: one if type(one) is str else "")
def test_a_size_that_is_none_is_named_with_its_file(raw, field, value):
    with pytest.raises(InputError, match=rf"^model/config.json: '{field}' is .*; legal: "):
        encoder_config({**raw, field: value}, HERE)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_type": ["bert"]}, "model_type"),
        ({"architectures": 5}, "architectures"),
        ({"architectures": [5]}, r"architectures\[0\]"),
        ({"id2label": {"0": [1]}}, "id2label.0"),
        ({"id2label": ["a"]}, "id2label"),
        ({"id2label": {"NOUN": "a"}}, "id2label.NOUN"),
        ({"id2label": {"-1": "a"}}, "id2label.-1"),
        ({"layer_norm_eps": -1e-12}, "layer_norm_eps"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps"),
        ({"layer_norm_eps": 2}, "layer_norm_eps"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"pad_token_id": 100}, "pad_token_id"),
        ({"dtype": "float37"}, "dtype"),
        ({"torch_dtype": 5}, "torch_dtype"),
        ({"model_type": "xlm-roberta", "pad_token_id": 49}, "max_position_embeddings"),
    ],
    ids=str,
)
def test_a_field_of_another_type_or_range_is_named(changes, field):
    with pytest.raises(InputError, match=rf"^model/config.json: '{field}' is .*; legal: ") as said:
        encoder_config({**BERT, **changes}, HERE)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rope_parameters": 5}, "'rope_parameters' is 5"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "'rope_parameters.rope_theta' is 10000.0"),
        ({"rope_parameters": {"full_attention": {"rope_theta": "x"}}}, "'rope_theta' is 'x'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 0}}}, "'rope_theta' is 0"),
        ({"local_attention": -2}, "'local_attention' is -2"),
        ({"norm_eps": True}, "'norm_eps' is True"),
        ({"attention_bias": 1}, "'attention_bias' is 1; legal: a valid boolean"),
        ({"layer_types": 5}, "'layer_types' is 5"),
        ({"hidden_size": 780}, "heads are 65 wide; RoPE turns pairs"),
    ],
    ids=str,
)
def test_a_modernberts_field_of_another_type_is_named(changes, complaint):
    with pytest.raises(InputError, match=f"^model/config.json: .*{complaint}"):
        encoder_config({**SIZES, **changes}, HERE)
