"""The quick check before an evaluation: what it refuses, what records say, when it is made."""

import json
from dataclasses import replace

import pytest

from xtremely.engine.backends.packed import Packed
from xtremely.engine.runtime import Engine
from xtremely.eval.check import quick
from xtremely.eval.run import verdicts

MINI = ("--tasks", "mini", "--languages", "de", "--quiet", "--device", "cpu")


@pytest.fixture
def shifted(monkeypatch):
    """Packed positions are shifted by one."""
    hidden = Packed.hidden

    def wrong(self, batch, layers):
        places = (batch.position_ids + 1) % self.max_length
        return hidden(self, replace(batch, position_ids=places), layers)

    monkeypatch.setattr(Packed, "hidden", wrong)


def checks_of(out):
    records = json.loads((out / "results.json").read_text())["records"]
    assert records
    (verdict,) = {json.dumps(record["check"]) for record in records}
    return json.loads(verdict)


@pytest.fixture
def counted(monkeypatch):
    """The layers of every quick check that is really made."""
    made = []

    def check(engine, layers):
        made.append([*layers])
        return quick.quick_check(engine, layers)

    monkeypatch.setattr(verdicts, "quick_check", check)
    return made


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_shifted_positions_stop_a_run_before_anything_is_computed(
    xtremely, make_tiny, tmp_path, shifted, family
):
    folder, out = make_tiny(family, type_vocab_size=1), tmp_path / "out"
    code, _, errors = xtremely("eval", "--model", folder, *MINI, "--layers", "all", "--out", out)
    assert code == 1
    assert "the model on torch in fp32 differs by" in errors and "--no-check" in errors
    assert "at layer 0, token 0 '<s>', text 1 " in errors
    assert not (out / "results.json").exists() and not [*out.glob("cells/*")]
    code, _, errors = xtremely("eval", "--model", folder, *MINI, "--out", out, "--no-check")
    assert code == 0, errors
    assert checks_of(out)["result"] == "not run"


def test_the_verdict_is_in_every_record_and_is_not_made_again(
    xtremely, tiny_bert, tmp_path, counted
):
    first = tmp_path / "out"
    command = ("eval", "--model", tiny_bert, *MINI, "--out", first)
    assert xtremely(*command)[0] == 0
    verdict = checks_of(first)
    assert (verdict["result"], verdict["layers"], verdict["texts"]) == ("passed", [3], 16)
    assert 0 < verdict["difference"] < verdict["limit"] == 1e-3
    page = (first / "report.html").read_text()
    assert "passed: differs from transformers by" in page and "(limit 0.001)" in page
    (cell,) = first.glob("cells/*.json")
    assert "check" not in json.loads(cell.read_text())["records"][0]
    assert xtremely(*command)[0] == 0 and checks_of(first) == verdict
    assert counted == [[3]]
    assert xtremely(*command, "--precision", "bf16")[0] == 0
    assert checks_of(first)["limit"] == 0.3 and counted == [[3], [3]]
    assert xtremely(*command, "--layers", "1,2")[0] == 0 and counted[2:] == [[1, 2]]
    kept = first / "checks.json"
    kept.write_text(kept.read_text().replace("passed", "failed"))
    code, _, errors = xtremely(*command)
    assert code == 0 and "checks.json: was changed or cut; it is computed again" in errors
    assert checks_of(first) == verdict


def test_a_finished_run_without_a_verdict_gets_one(xtremely, tiny_bert, tmp_path):
    out = tmp_path / "out"
    command = ("eval", "--model", tiny_bert, *MINI, "--out", out)
    assert xtremely(*command, "--no-check")[0] == 0
    (cell,) = out.glob("cells/*.json")
    before = cell.stat().st_mtime_ns
    assert xtremely(*command)[0] == 0
    assert checks_of(out)["result"] == "passed" and cell.stat().st_mtime_ns == before


def test_every_checkpoint_is_checked_before_the_first_is_used(
    xtremely, make_tiny, write, tmp_path, monkeypatch
):
    from xtremely.eval.tasks.task import find_task

    labels = dict(enumerate(find_task("panx").rules.labels))
    tagger = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    base = make_tiny("bert")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/panx").symlink_to(tagger)
    write("data/panx/test-de.tsv", "Anna\tB-PER\nruft\tO\n\n")
    hidden = Packed.hidden
    only = Engine.load(str(tagger), device="cpu").backend.encoder.embeddings.words[5, 0].item()

    def wrong(self, batch, layers):
        found = hidden(self, batch, layers)
        bad = self.encoder.embeddings.words[5, 0].item() == only
        return {k: v * (2 if bad else 1) for k, v in found.items()}

    monkeypatch.setattr(Packed, "hidden", wrong)
    options = ("--checkpoints", tmp_path / "checkpoints", "--data-root", tmp_path / "data")
    code, _, errors = xtremely(
        "eval",
        "--model",
        base,
        *MINI[2:],
        "--tasks",
        "mini,panx",
        *options,
        "--out",
        tmp_path / "o",
    )
    assert code == 1 and "differs by" in errors
    assert not [*(tmp_path / "o").glob("cells/*")]


def test_a_model_that_only_transformers_runs_is_left_out(xtremely, make_tiny, tmp_path):
    folder, out = make_tiny("ernie"), tmp_path / "out"
    assert xtremely("eval", "--model", folder, *MINI, "--out", out)[0] == 0
    verdict = checks_of(out)
    assert (verdict["result"], verdict["difference"]) == ("left out", None)
    assert verdict["reason"] == "transformers itself runs this model"
    assert "left out: transformers itself runs this model" in (out / "report.html").read_text()


def test_a_larger_model_gets_fewer_texts_and_a_very_large_one_none(tiny_bert, monkeypatch):
    engine = Engine.load(str(tiny_bert), device="cpu")
    counts = []
    for speed in (3e10, 1e8, 2e7, 1e5):
        monkeypatch.setitem(quick.OPERATIONS, "cpu", speed)
        counts.append(quick.quick_check(engine, [3]).texts)
    assert counts == sorted(counts, reverse=True) and counts[0] == 16 and counts[-1] == 0
    assert len({*counts}) > 2
    verdict = quick.quick_check(engine, [3])
    assert (verdict.result, verdict.reason) == (
        "left out",
        "the model is too large for a quick check",
    )


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_pass_where_they_are_right(make_tiny, precision):
    folder = make_tiny("bert", initializer_range=0.05)
    engine = Engine.load(str(folder), backend="torch", device="cpu", precision=precision)
    verdict = quick.quick_check(engine, [1, 3])
    assert verdict.result == "passed" and verdict.difference > 1e-5
