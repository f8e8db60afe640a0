"""Every hidden state of the packed encoder against transformers' own model."""

import json

import numpy as np
import pytest
import torch

from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate, plan
from xtremely.engine.text.tokenizer import Tokens
from xtremely.kernels.guard import InputError

MODERN = {"local_attention": 20, "num_hidden_layers": 4}
MODERN |= dict.fromkeys(("bos_token_id", "cls_token_id"), 0)
MODERN |= dict.fromkeys(("eos_token_id", "sep_token_id"), 2)
FAMILIES = {
    "bert": {},
    "bert-types": {"kind": "bert", "type_vocab_size": 3, "layer_norm_eps": 1e-5},
    "xlm-roberta": {"type_vocab_size": 1},
    "roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "modernbert": MODERN,
    "modernbert-biases": {
        "kind": "modernbert",
        **MODERN,
        **dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias"), True),
        "norm_eps": 1e-3,
    },
    "modernbert-layers": {
        "kind": "modernbert",
        **MODERN,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    },
}


def compare_all_layers(engine, model, texts):
    """Largest difference of any hidden state, relative to the largest value of that layer."""
    tokens = engine.tokenizer(texts)
    layers = range(engine.backend.layers + 1)
    worst = 0.0
    for indices in plan(tokens.lengths, 200):
        batch = collate(tokens, indices)
        ours = engine.backend.hidden(batch, layers)
        rows = [tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() for i in indices]
        width = max(map(len, rows))
        padded = torch.tensor([row + [1] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        with torch.inference_mode():
            theirs = model(
                input_ids=padded, attention_mask=mask, output_hidden_states=True
            ).hidden_states
        for layer in layers:
            difference = (ours[layer] - theirs[layer][mask.bool()]).abs().max()
            worst = max(worst, float(difference / theirs[layer][mask.bool()].abs().max()))
    return worst


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_equal_transformers_for_packed_and_padded_input(make_tiny, sentences, family):
    from transformers import AutoModel

    settings = dict(FAMILIES[family])
    folder = make_tiny(settings.pop("kind", family), **settings)
    engine = Engine.load(str(folder))
    assert engine.backend.implementation == "packed"
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    assert compare_all_layers(engine, model, sentences) < 1e-4


@pytest.mark.oracle
def test_all_layers_equal_transformers_under_a_configuration_as_mmbert_publishes_it(
    make_tiny, sentences
):
    from transformers import AutoModel

    folder = make_tiny("modernbert", **MODERN)
    raw = json.loads((folder / "config.json").read_text())
    for name in ("layer_types", "rope_parameters"):
        raw.pop(name)
    raw |= {
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 5000.0,
        "local_rope_theta": 100.0,
        "position_embedding_type": "sans_pos",
        "layer_norm_eps": 0.1,
    }
    (folder / "config.json").write_text(json.dumps(raw))
    engine = Engine.load(str(folder))
    assert engine.backend.implementation == "packed"
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    assert compare_all_layers(engine, model, sentences) < 1e-4


@pytest.mark.oracle
def test_all_layers_of_the_default_model_equal_transformers(e5, sentences):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(e5.folder).eval()
    assert compare_all_layers(e5, model, sentences[::3]) < 1e-4


HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering")


@pytest.mark.oracle
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["xlm-roberta", "modernbert"])
def test_a_checkpoint_with_a_task_head_loads_as_its_encoder(
    make_tiny, tmp_path, sentences, family, head
):
    import transformers
    from transformers import AutoModel

    folder = make_tiny(family, **FAMILIES[family])
    headed = tmp_path / "headed"
    getattr(transformers, f"AutoModelFor{head}").from_pretrained(folder).save_pretrained(headed)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (headed / name).write_bytes((folder / name).read_bytes())
    model = AutoModel.from_pretrained(folder).eval()
    assert compare_all_layers(Engine.load(str(headed)), model, sentences[::6]) < 1e-4


def test_nothing_above_the_highest_wanted_layer_is_computed(tiny_bert):
    engine = Engine.load(str(tiny_bert))
    ran = []
    for number, layer in enumerate(engine.backend.encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    tokens = engine.tokenizer(["a b c"])
    states = engine.backend.hidden(collate(tokens, plan(tokens.lengths, 99)[0]), [0, 2])
    assert (ran, sorted(states)) == ([1, 2], [0, 2])


@pytest.mark.parametrize("kind", ["bert", "modernbert", "ernie"])
def test_a_sequence_that_is_too_long_is_refused_before_anything_runs(make_tiny, kind):
    engine = Engine.load(str(make_tiny(kind, **(MODERN if kind == "modernbert" else {}))))
    ids, types = np.full(134, 7, dtype=np.int32), np.zeros(134, dtype=np.uint8)
    tokens = Tokens(ids, types, offsets=np.array([0, 3, 134]), truncated=0)
    with pytest.raises(InputError, match="has 131 tokens, the model takes at most 130; tokenise"):
        engine.backend.hidden(collate(tokens, np.arange(2)), [0])
