"""Every hidden state of the packed encoder against transformers' own model."""

import pytest
import torch

from xtremely.engine.batch import collate, plan
from xtremely.engine.runtime import Engine

FAMILIES = {
    "bert": {},
    "bert-types": {"kind": "bert", "type_vocab_size": 3, "layer_norm_eps": 1e-5},
    "xlm-roberta": {"type_vocab_size": 1},
    "roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
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
    model = AutoModel.from_pretrained(folder).eval()
    assert compare_all_layers(engine, model, sentences) < 1e-4


@pytest.mark.oracle
def test_all_layers_of_the_default_model_equal_transformers(e5, sentences):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(e5.folder).eval()
    assert compare_all_layers(e5, model, sentences[::3]) < 1e-4


@pytest.mark.oracle
def test_a_checkpoint_with_a_task_head_loads_as_its_encoder(make_tiny, tmp_path, sentences):
    from transformers import AutoModel, XLMRobertaForMaskedLM

    folder = make_tiny("xlm-roberta", type_vocab_size=1)
    headed = tmp_path / "headed"
    XLMRobertaForMaskedLM.from_pretrained(folder).save_pretrained(headed)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (headed / name).write_bytes((folder / name).read_bytes())
    model = AutoModel.from_pretrained(folder).eval()
    assert compare_all_layers(Engine.load(str(headed)), model, sentences) < 1e-4


def test_nothing_above_the_highest_wanted_layer_is_computed(tiny_bert):
    engine = Engine.load(str(tiny_bert))
    ran = []
    for number, layer in enumerate(engine.backend.encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    tokens = engine.tokenizer(["a b c"])
    states = engine.backend.hidden(collate(tokens, plan(tokens.lengths, 99)[0]), [0, 2])
    assert (ran, sorted(states)) == ([1, 2], [0, 2])
