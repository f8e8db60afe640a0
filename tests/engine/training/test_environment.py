"""What a training run's bits depend on: recorded, kept when it goes on, or refused."""

import json
import warnings

import numpy as np
import pytest
import torch
import transformers

from xtremely.engine.training import _trainer, trainer
from xtremely.engine.training.dataset import Feature, TrainSet
from xtremely.engine.training.environment import environment, resumed
from xtremely.engine.training.hyperparameters import Hyperparameters, TrainerSettings
from xtremely.engine.training.multitask_model import HeadPlan
from xtremely.engine.training.trainer import fit
from xtremely.kernels.guard import InputError

HYPERPARAMETERS = Hyperparameters(
    epochs=1.0, max_steps=5, learning_rate=1e-2, batch_size=8, warmup=0.0, weight_decay=0.0,
    evaluate_steps=2,
)  # fmt: skip
SETTINGS = TrainerSettings(
    seed=3, freeze=False, prune=False, precision="fp32", device="cpu", save_steps=1
)


@pytest.fixture(scope="module")
def base(make_tiny):
    """Large enough that two threads share its sums."""
    return make_tiny(
        "bert", hidden_size=128, intermediate_size=512, num_hidden_layers=1,
        initializer_range=0.02, vocab_size=3000,
    )  # fmt: skip


@pytest.fixture
def threads():
    """Sets torch's threads; afterwards they are as they were."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def run(base, tmp_path):
    """Trains; gives the fit."""
    rng = np.random.default_rng(0)
    features = [
        Feature((rng.integers(4, 2000, 60).astype(np.int32),), (np.zeros(60, np.uint8),), n % 2)
        for n in range(40)
    ]
    plans = [HeadPlan("pairs", "sequence classification", ("no", "yes"))]
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)

    def run(name):
        train_sets = [TrainSet("pairs", features)]
        both, work = (HYPERPARAMETERS, SETTINGS), tmp_path / name
        return fit(base, tokenizer, plans, train_sets, [], *both, work, quiet=True)

    return run


@pytest.fixture
def killed(run, monkeypatch, tmp_path):
    """Ends a run as soon as its third checkpoint is whole; gives the checkpoint."""

    def killed(name):
        save = _trainer.Steps.on_save

        def stop(self, args, state, control, **rest):
            save(self, args, state, control, **rest)
            if state.global_step == 3:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(_trainer.Steps, "on_save", stop)
            run(name)
        return tmp_path / name / "checkpoint-3"

    return killed


def same(a, b):
    a, b = (one.multitask_model.state_dict() for one in (a, b))
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_killed_run_goes_on_with_the_threads_that_it_had(run, killed, threads):
    threads(2)
    undisturbed = run("undisturbed")
    note = json.loads((killed("killed") / "complete").read_text())
    assert note["step"] == 3 and note["made_with"]["threads"] == 2
    threads(1)
    resumed = run("killed")
    assert torch.get_num_threads() == 1
    assert resumed.resumed == 3 and resumed.made_with["threads"] == 2
    assert same(resumed, undisturbed)


def test_threads_are_what_the_weights_depend_on(run, killed, threads, monkeypatch):
    """While it trains, torch has the recorded number, whatever it is."""
    threads(2)
    killed("killed")
    threads(1)
    seen, step = [], _trainer.Steps.on_step_end

    def watched(self, *rest, **more):
        seen.append(torch.get_num_threads())
        return step(self, *rest, **more)

    monkeypatch.setattr(_trainer.Steps, "on_step_end", watched)
    run("killed")
    assert seen == [2, 2]


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint's note and goes on from it, doing nothing."""
    folder = tmp_path / "killed" / "checkpoint-3"
    folder.mkdir(parents=True)

    def go_on(note):
        (folder / "complete").write_text(note)
        with resumed(folder, "complete", environment("cpu", "fp32")) as made_with:
            return made_with

    return go_on


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("torch", "1.0"),
        ("transformers", "1.0"),
        ("processor", "Z80"),
        ("instructions", "NONE"),
        ("device", "cuda"),
        ("precision", "bf16"),
        ("processes", 2),
        ("MKL_CBWR", "AVX2"),
    ],
)
def test_what_cannot_be_had_here_is_refused_by_name(checkpoint, tmp_path, name, value):
    note = {"step": 3, "made_with": {**environment("cpu", "fp32"), name: value}}
    with pytest.raises(InputError, match=f"made with {name} {value}, here .*remove.*killed") as e:
        checkpoint(json.dumps(note))
    assert str(tmp_path / "killed") in str(e.value) and "\n" not in str(e.value)
    assert (tmp_path / "killed").exists(), "nothing was deleted"


def test_all_that_differs_is_named(checkpoint):
    note = {"step": 3, "made_with": {**environment("cpu", "fp32"), "torch": "1", "numpy": "2"}}
    with pytest.raises(InputError, match="with torch 1, here .*; numpy 2, here"):
        checkpoint(json.dumps(note))


def test_a_variable_that_is_set_only_here_is_refused(checkpoint, monkeypatch):
    note = json.dumps({"step": 3, "made_with": environment("cpu", "fp32")})
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    with pytest.raises(InputError, match="made with MKL_CBWR unset, here COMPATIBLE"):
        checkpoint(note)


def test_a_checkpoint_of_an_earlier_version_goes_on_and_says_what_it_lacks(checkpoint):
    with pytest.warns(UserWarning, match="does not say with how many threads"):
        assert checkpoint('{"step": 3}') == environment("cpu", "fp32")


@pytest.mark.parametrize(
    ("note", "complaint"),
    [
        ("[", "broken JSON"),
        ('{"step": "x"}', "step"),
        ("{}", "step"),
        ("\0" * 9, "JSON"),
        ('{"step": 3, "made_with": {"threads": 0}}', "threads"),
        ('{"step": 3, "made_with": {"threads": "two"}}', "threads"),
        ('{"step": 3, "made_with": {"torch": "2"}}', "threads"),
    ],
)
def test_a_damaged_note_is_one_line(checkpoint, note, complaint):
    with pytest.raises(InputError, match=complaint):
        checkpoint(note)


def test_surroundings_name_what_torch_says():
    found = environment("cpu", "fp32")
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["torch"].startswith(torch.__version__.partition("+")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert json.loads(json.dumps(found)) == found
    assert trainer.choose_device("cpu") == found["device"]
