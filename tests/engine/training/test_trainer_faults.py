"""Training that comes to nothing: numbers that are not finite, folders that cannot be trained."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from training_cases import CALM, run, run_and_save

from xtremely.engine.config_json import read_config
from xtremely.engine.models import loading
from xtremely.engine.models.families import encoder_config
from xtremely.engine.training import multitask_model as models
from xtremely.engine.training.trainer import Trainer
from xtremely.kernels.guard import InputError, UsageError


@pytest.fixture(scope="module")
def base(make_tiny):
    return make_tiny("bert", initializer_range=0.05, **CALM)


@pytest.fixture(scope="module")
def tokenizer(base):
    return transformers.AutoTokenizer.from_pretrained(base)


@pytest.fixture
def trained(base, tokenizer, tmp_path):
    """Trains a tagger and saves it."""

    def trained(folder=base, name="a", **changes):
        return run_and_save(folder, tokenizer, tmp_path, name, **changes)

    return trained


# Disks


@pytest.mark.parametrize(
    ("writer", "trouble"),
    [
        ("torch.save", RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")),
        ("torch.save", OSError(28, "No space left on device")),
        (
            "safetensors.torch.save_file",
            SafetensorError("Error while serializing: No space left on device (os error 28)"),
        ),
    ],
    ids=["torch", "system", "safetensors"],
)
def test_a_checkpoint_that_cannot_be_written_is_one_line(trained, monkeypatch, writer, trouble):
    def full(*arguments, **options):
        raise trouble

    monkeypatch.setattr(writer, full)
    with pytest.raises(InputError, match="a checkpoint could not be written .*make room there"):
        trained(save_steps=1)


# Numbers that are not finite


def test_training_stops_at_the_first_loss_that_is_not_finite(trained, tmp_path):
    complaint = r"step \d+: the (loss|gradient's length) is (nan|inf), at a learning rate of .*e\+"
    with pytest.raises(InputError, match=complaint) as said:
        trained(learning_rate=1e30, freeze=False, warmup=0.0, save_steps=1, name="burst")
    assert "nothing was saved. Lower the learning rate" in str(said.value)
    assert not (tmp_path / "burst").exists()


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_step_is_named_and_takes_nothing_with_it(trained, tmp_path, monkeypatch, what, value):
    seen, plain = [], Trainer.compute_loss

    def loss(self, model, inputs, *args, **kwargs):
        seen.append(self.state.global_step)
        found = plain(self, model, inputs, *args, **kwargs)
        if len(seen) < 3:
            return found
        return found * value if what == "loss" else _Spoilt.apply(found, value)

    monkeypatch.setattr(Trainer, "compute_loss", loss)
    name = "loss" if what == "loss" else "gradient's length"
    with pytest.raises(InputError, match=rf"step 3: the {name} is (nan|inf), at a learning rate"):
        trained(save_steps=1, name="stopped", warmup=0.0)
    assert seen == [0, 1, 2]
    kept = sorted(path.parent.name for path in (tmp_path / "work-stopped").glob("*/complete"))
    assert kept == ["checkpoint-2"], "what came before is whole"


class _Spoilt(torch.autograd.Function):
    """A loss as it is, with gradients that are not finite."""

    @staticmethod
    def forward(ctx, loss, value):
        ctx.value = value
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.value, None


def test_numbers_on_a_gpu_are_looked_at_before_a_checkpoint_or_a_score(trained, monkeypatch):
    monkeypatch.setattr(Trainer, "_look", _late)
    plain = Trainer.compute_loss

    def loss(self, *args, **kwargs):
        return plain(self, *args, **kwargs) * (float("nan") if self.state.global_step == 1 else 1)

    monkeypatch.setattr(Trainer, "compute_loss", loss)
    for settings in ({"save_steps": 2}, {"max_steps": 2}):
        with pytest.raises(InputError, match="step 2: the loss is nan"):
            trained(name=f"late{len(settings)}{[*settings][0]}", **settings)


def _late(self, what, value):
    """As on a device whose numbers arrive later."""
    self._looks.append((what, self.state.global_step + 1, 0.0, lambda: value))


def test_a_model_with_weights_that_are_not_finite_is_not_saved(base, tokenizer, tmp_path):
    _, fitted = run(base, tokenizer, tmp_path / "work")
    head = fitted.multitask_model.models["tags"].classifier
    head.weight.data[1, 2] = float("nan")
    with pytest.raises(InputError, match=r"not saved, .* in 1 weights \(classifier.weight\)"):
        models.save(fitted.multitask_model, "tags", base, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Folders that cannot be trained from


def test_a_base_with_weights_that_are_not_finite_is_refused(base, trained, tmp_path):
    folder = shutil.copytree(base, tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    tensors[name][1, 1] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"weight '{name}' holds NaN or infinity"):
        trained(folder)


def test_a_base_that_lacks_weights_is_refused(base, trained, tmp_path):
    folder = shutil.copytree(base, tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks encoder\.layer\.0\.output\.dense\.weight"):
        trained(folder)


def test_a_tokenizer_without_padding_is_refused(base, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = None
    with pytest.raises(InputError, match="no padding token, which training needs; name one as"):
        run(base, tokenizer, tmp_path / "work")


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({}, 130),
        ({"model_type": "xlm-roberta"}, 128),
        ({"model_type": "xlm-roberta", "pad_token_id": 0}, 129),
        ({"model_type": "xlm-roberta", "pad_token_id": None}, 128),
    ],
)
def test_the_longest_sequence_is_what_the_encoder_takes(base, tmp_path, changes, longest):
    raw = json.loads((base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, **changes}))
    assert loading.longest(tmp_path) == longest
    if "model_type" in changes:
        assert encoder_config(read_config(tmp_path), tmp_path).max_length == longest


@pytest.mark.parametrize("name", ["epochs", "learning_rate", "warmup", "weight_decay"])
def test_a_hyperparameter_that_training_needs_is_missing(trained, name):
    with pytest.raises(UsageError, match=f"{name} is None; training needs a number"):
        trained(**{name: None})
