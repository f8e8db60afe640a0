"""``xtremely check`` as a user meets it: the tables, the JSON, exit codes and the one line."""

import json
from dataclasses import replace

import pytest
import torch

from xtremely.engine.backends.packed import Packed
from xtremely.eval.check import backends, whole

FAMILY = {"initializer_range": 0.05}
LABELS = {"id2label": dict(enumerate("abc"))}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backends, "COUNTS", (6,))


@pytest.fixture
def without_backends(monkeypatch):
    """The slow checks, which are tested on their own, are left out."""
    monkeypatch.setattr(whole, "check_backends", lambda *given: iter(()))
    monkeypatch.setattr(whole, "check_onnx", lambda *given: iter(()))


@pytest.fixture
def shifted(monkeypatch):
    """Packed positions are shifted by one."""
    hidden = Packed.hidden

    def wrong(self, batch, layers):
        places = (batch.position_ids + 1) % self.max_length
        return hidden(self, replace(batch, position_ids=places), layers)

    monkeypatch.setattr(Packed, "hidden", wrong)


def test_a_model_is_checked_on_everything_that_runs(xtremely, make_tiny, monkeypatch):
    monkeypatch.setattr(backends, "PRECISIONS", ("fp32", "int8"))
    folder = make_tiny("bert", "AutoModelForTokenClassification", **FAMILY, **LABELS)
    code, out, errors = xtremely("check", folder, "--json", "--device", "cpu")
    assert code == 0, errors
    report = json.loads(out)
    assert report["passed"] and report["model"]["heads"] == ["token classification"]
    assert report["model"]["special tokens"] == ["<s>", "</s>"]
    results = {one["name"]: one["passed"] for one in report["findings"]}
    assert results.pop("sentence-transformers") is None
    assert set(results.values()) == {True}
    wanted = {"tokens", "layers, torch fp32", "head, token classification"}
    wanted |= {f"onnx {one}, before optimisation" for one in ("fp32", "int8")}
    wanted |= {f"{what}, onnx int8" for what in ("states", "company")}
    assert wanted <= set(results)
    ran = {(one["backend"], one["precision"]): one for one in report["backends"]}
    assert ran["torch", "fp32"]["flips"] == 0 and ran["torch", "fp32"]["predictions"] == 26 * 6
    assert 0.9 < ran["onnx", "int8"]["cosines"]["centred_worst"] < 0.9999
    assert ran["onnx", "fp32"]["cosines"]["centred_worst"] == pytest.approx(1, abs=1e-6)
    assert "heads are 12 wide" in ran["native", "fp32"]["left_out"]
    assert ("torch", "int8") not in ran and all(one != "triton" for one, _ in ran)
    assert "checking backends" in errors


def test_a_failure_ends_with_its_place_and_exit_code_1(
    xtremely, make_tiny, shifted, without_backends
):
    folder = make_tiny("xlm-roberta", type_vocab_size=1)
    code, out, errors = xtremely("check", folder, "--device", "cpu")
    assert code == 1
    last = errors.splitlines()[-1]
    assert last.startswith("error: the check failed: layers, torch fp32 differs by ")
    assert "(at most 0.001 passes) at layer 0, token 0 '<s>', text 1 " in last
    assert "failed" in out and "layer 0, token 0" in out
    code, out, _ = xtremely("check", folder, "--device", "cpu", "--json", "--quiet")
    report = json.loads(out)
    assert (code, report["passed"]) == (1, False)
    failed = next(one for one in report["findings"] if one["passed"] is False)
    assert failed["where"] | {"text": ""} == {
        "text": "",
        "number": 1,
        "token": 0,
        "piece": "<s>",
        "layer": 0,
    }


def test_a_backend_that_ends_in_an_error_has_failed(xtremely, tiny_bert, monkeypatch):
    monkeypatch.setattr(whole, "check_onnx", lambda *given: iter(()))
    monkeypatch.setattr(backends, "combinations", lambda device: [("torch", "fp32")])
    hidden = Packed.hidden

    def wrong(self, batch, layers):
        found = hidden(self, batch, layers)
        return {k: v if len(layers) > 2 else v * float("nan") for k, v in found.items()}

    monkeypatch.setattr(Packed, "hidden", wrong)
    code, _, errors = xtremely("check", tiny_bert, "--device", "cpu")
    assert code == 1
    assert "check failed: states, torch fp32: NaN or infinity in hidden state" in errors


@pytest.mark.parametrize("kind", ["ernie", "canine"])
def test_a_model_that_only_transformers_runs(xtremely, make_tiny, monkeypatch, kind):
    monkeypatch.setattr(backends, "combinations", lambda device: [("torch", "fp32")])
    folder = make_tiny(kind)
    code, out, errors = xtremely("check", folder, "--device", "cpu")
    assert code == 0, errors
    assert "layers: left out: transformers itself runs this model" in out


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("e5-smal-4bit",), 2, "unknown model 'e5-smal-4bit'; did you mean 'e5-small-4bit'?"),
        (("no/such/folder",), 1, "there is no such folder"),
        (("TINY", "--device", "tpu"), 2, "device 'tpu' is not known; legal: auto, cpu"),
        ((), 2, "Missing argument"),
        (("",), 2, "is empty"),
    ],
)
def test_what_cannot_be_checked(xtremely, tiny_bert, arguments, code, complaint):
    given = [tiny_bert if one == "TINY" else one for one in arguments]
    found, out, errors = xtremely("check", *given)
    assert found == code and complaint in errors and not out


def test_a_gpu_runs_everything_and_a_cpu_no_emulations():
    on_cpu, on_gpu = ([*backends.combinations(torch.device(d))] for d in ("cpu", "cuda"))
    assert on_cpu[0] == on_gpu[0] == ("torch", "fp32")
    assert len({*on_gpu}) == len(on_gpu) == 20 and {*on_cpu} < {*on_gpu}
    assert {backend for backend, _ in on_cpu} == {"torch", "native", "onnx"}
    assert {*on_gpu} - {*on_cpu} == {
        *(("triton", one) for one in ("fp32", "fp16", "bf16", "fp8", "int8")),
        *(("torch", "fp8"), ("torch", "int8"), ("onnx", "fp16")),
    }
