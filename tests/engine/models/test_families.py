"""A family is one value: one added to the table is known wherever families are told apart."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from instruction_paths import missing
from safetensors.torch import load_file, save_file

from xtremely.engine.backends.native import encoder as native
from xtremely.engine.backends.select import open_backend
from xtremely.engine.models import bert, families
from xtremely.engine.models.encoder import PRECISIONS
from xtremely.engine.models.head_forms import Form
from xtremely.engine.models.heads import HEAD_KINDS, load_head
from xtremely.engine.text.batch import collate
from xtremely.engine.text.tokenizer import Tokens
from xtremely.eval.cli.listings import print_models
from xtremely.kernels.guard import InputError

CPU = torch.device("cpu")
TYPE = "ernie"  # which transformers can configure, but has no packed encoder
BERTS = "bert, xlm-roberta, roberta, camembert"
NATIVE = f"{BERTS}, modernbert, distilbert, electra, rembert"
PACKED = f"{BERTS}, modernbert, deberta-v2, distilbert, electra, rembert, mpnet, xlm-roberta-xl"


class Backwards(bert.Bert):
    """BERT with its layers in the reverse order."""

    def states(self, batch, ops):
        x = self.embeddings(batch, ops)
        yield x
        for layer in reversed(self.layers):
            x = layer(x, batch.layout, ops)
            yield x


BACKWARDS = replace(
    bert.FAMILY,
    model_types=(TYPE,),
    encoder=Backwards,
    weights=replace(
        bert.FAMILY.weights, prefixes=("backwards.",), heads=re.compile(r"(pooler|tags)\.")
    ),
    forms={TYPE: {"token classification": Form("every", "tags")}},
    quantized=(),
    native=None,
)


@pytest.fixture
def added(monkeypatch, tmp_path):
    """The family is in the table; exported files go to a cache of the test's own."""
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, BACKWARDS))
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_bert, tmp_path):
    """The tiny BERT as a model of the family, with a head."""
    made = shutil.copytree(tiny_bert, tmp_path / "model")
    raw = json.loads((made / "config.json").read_text())
    raw |= {
        "model_type": TYPE,
        "architectures": ["ErnieForTokenClassification"],
        "id2label": {"0": "O", "1": "B"},
        "label2id": {"O": 0, "B": 1},
    }
    (made / "config.json").write_text(json.dumps(raw))
    stored = load_file(made / "model.safetensors")
    tensors = {f"backwards.{name}": one for name, one in stored.items()}
    tensors |= {"tags.weight": torch.randn(2, 48), "tags.bias": torch.tensor([0.5, -1.0])}
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    return made


@pytest.fixture
def batch():
    lengths = np.array([9, 5, 5, 1])
    offsets = np.concatenate([[0], lengths.cumsum()])
    ids = np.arange(lengths.sum()) + 7
    return collate(Tokens(ids, ids % 2, offsets, 0), np.arange(len(lengths)))


def reversed_states(tiny_bert, batch):
    """What the family's encoder gives, from BERT's own layers one by one."""
    backend = open_backend(tiny_bert, "torch", CPU, "fp32")
    with torch.inference_mode():
        states = [backend.encoder.embeddings(batch, backend.ops)]
        for layer in reversed(backend.encoder.layers):
            states.append(layer(states[-1], batch.layout, backend.ops))
    return states


@pytest.mark.parametrize("name", ["auto", "torch"])
def test_an_added_family_runs_packed(added, folder, tiny_bert, batch, name):
    backend = open_backend(folder, name, CPU, "fp32")
    assert (backend.name, backend.implementation) == ("torch", "packed")
    found = backend.hidden(batch, range(4))
    for layer, expected in enumerate(reversed_states(tiny_bert, batch)):
        torch.testing.assert_close(found[layer], expected, rtol=0, atol=0)


def test_an_added_family_is_exported(added, folder, tiny_bert, batch):
    backend = open_backend(folder, "onnx", CPU, "fp32")
    expected = reversed_states(tiny_bert, batch)[3]
    found = backend.hidden(batch, [3])[3]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4)


def test_an_added_familys_head_is_found(added, folder, tiny_bert, batch):
    backend = open_backend(folder, "torch", CPU, "fp32")
    head = load_head(folder, backend, "token classification", ("B", "O"))
    assert head.labels == ("O", "B")
    tensors = load_file(folder / "model.safetensors")
    states = reversed_states(tiny_bert, batch)[3]
    expected = states @ tensors["tags.weight"].T + tensors["tags.bias"]
    torch.testing.assert_close(head(states, batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "precision", "complaint"),
    [
        ("torch", "fp8", f"'ernie' does not run in fp8; legal: {BERTS}; use bf16"),
        (
            "torch",
            "int8",
            f"int8 on the torch backend is for {BERTS}, modernbert; use --backend onnx",
        ),
    ],
)
def test_what_an_added_family_does_not_have_is_refused(added, folder, name, precision, complaint):
    with pytest.raises(InputError, match=complaint):
        open_backend(folder, name, CPU, precision)


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_an_added_family_without_cpp_is_refused_by_the_native_backend(added, folder):
    with pytest.raises(InputError, match=f"is for {NATIVE}, not 'ernie'"):
        open_backend(folder, "native", CPU, "fp32")
    config = families.encoder_config(json.loads((folder / "config.json").read_text()), folder)
    assert native.unsupported_reason(config, "fp32") == "has no C++ for ernie"


@pytest.fixture
def tried_anew():
    native._try.cache_clear()
    yield
    native._try.cache_clear()


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_cpp_that_computes_something_else_for_a_family_is_not_used(monkeypatch, tried_anew):
    form = bert.FAMILY.native
    form = replace(form, trial=replace(form.trial, model_type=TYPE))
    wrong = replace(BACKWARDS, native=form)  # the C++ takes the layers in their order
    monkeypatch.setattr(families, "FAMILIES", (wrong,))
    assert "differs from torch in fp32" in native.unavailable_reason(CPU)


def test_an_added_family_is_listed(added, capsys):
    print_models()
    assert f"{PACKED}, ernie run packed" in capsys.readouterr().out


def test_a_model_type_of_no_family_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match=f"'ernie' is not one of {PACKED}$"):
        families.encoder_config({"model_type": TYPE}, tmp_path)
    with pytest.raises(InputError, match=f"not exported to ONNX; legal: {PACKED}$"):
        families.exportable({"model_type": TYPE}, tmp_path)


def test_no_two_families_share_a_model_type():
    names = [name for family in families.FAMILIES for name in family.model_types]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.model_types[0])
def test_a_family_holds_together(family):
    assert {*family.quantized} <= {*PRECISIONS}
    assert family.read_form or set(family.forms) == set(family.model_types)
    for forms in family.forms.values():
        assert set(forms) <= set(HEAD_KINDS)
    assert family.native is None or family.native.trial.model_type in family.model_types
