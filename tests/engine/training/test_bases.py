"""Bases of training with outputs of their own, or settings that are not the task's."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file
from training_cases import CALM, TAGS, changed, feature, run_and_save, tagged

from xtremely.engine.training import multitask_model as models
from xtremely.engine.training.dataset import DevSet, TrainSet
from xtremely.engine.training.multitask_model import HeadPlan
from xtremely.engine.training.trainer import fit

CALLS = {"return_dict": False, "output_attentions": True, "chunk_size_feed_forward": 4}


@pytest.fixture(scope="module")
def base(make_tiny):
    return make_tiny("bert", initializer_range=0.05, **CALM)


@pytest.fixture
def weights(base, tmp_path):
    """The weights after training a base with one other setting in its configuration, or none."""

    def weights(other, plans=None, train_sets=None, dev_sets=(), **changes):
        folder = shutil.copytree(base, tmp_path / "-".join(["base", *other]))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | other))
        asked = {"plans": plans, "train_sets": train_sets, "dev_sets": dev_sets, **changes}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        _, out = run_and_save(folder, tokenizer, tmp_path, f"{folder.name}-out", **asked)
        return load_file(out / "model.safetensors")

    return weights


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "rembert", "electra", "modernbert"])
@pytest.mark.parametrize("holds", [True, False])
def test_an_output_of_its_own_is_whole_again(make_tiny, tmp_path, kind, holds):
    """A masked language model whose output is not its word table: RemBERT's never is."""
    auto = "AutoModelForMaskedLM" if holds else "AutoModel"
    folder = make_tiny(kind, auto, initializer_range=0.05, tie_word_embeddings=False)
    masking = transformers.AutoTokenizer.from_pretrained(folder, mask_token="<unk>")
    texts = [TrainSet("mlm", [feature(12, None, seed=n) for n in range(6)])]
    plans = [HeadPlan("mlm", "masked language")]
    both = changed(freeze=False, learning_rate=1e-2)
    fitted = fit(folder, masking, plans, texts, [], *both, tmp_path / "work", quiet=True)
    model = fitted.multitask_model.models["mlm"].eval()
    kept = fitted.multitask_model.vocabulary.kept.tolist()
    row = [kept[n] for n in (2, 9, 11, 7, 3)]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[kept.index(one) for one in row]])).logits
    models.save(fitted.multitask_model, "mlm", folder, masking, tmp_path / "out")
    mlm = transformers.AutoModelForMaskedLM
    after, loading = mlm.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["mismatched_keys"]
    with torch.no_grad():
        found = after.eval()(input_ids=torch.tensor([row])).logits
    torch.testing.assert_close(found[..., kept], expected, rtol=0, atol=1e-5)
    others = [one for one in range(2000) if one not in kept]
    output = after.get_output_embeddings().weight[others]
    before = mlm.from_pretrained(folder).get_output_embeddings().weight[others] if holds else 0
    assert torch.equal(output, before if holds else torch.zeros_like(output))


@pytest.mark.parametrize("setting", CALLS)
def test_settings_of_calls_in_a_configuration_change_nothing(weights, setting):
    dev_sets = [DevSet("tags", tagged(3), lambda predictions: float(len(predictions)))]
    plain, other = (weights(one, dev_sets=dev_sets) for one in ({}, {setting: CALLS[setting]}))
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_the_problem_of_the_models_own_head_is_not_the_tasks(weights, problem):
    """A cross-encoder for similarity has a head for regression, which takes another loss. Three
    examples in a batch and three labels hid it.
    """
    plans = [HeadPlan("x", "sequence classification", TAGS)]
    train_sets = [TrainSet("x", [feature(5 + n % 3, n % 3, seed=n) for n in range(6)])]
    plain, other = (
        weights(one, plans, train_sets, batch_size=3) for one in ({}, {"problem_type": problem})
    )
    assert all(torch.equal(plain[name], other[name]) for name in plain)
