"""The table of all tasks: checkpoints are trained, evaluated in both precisions, and described."""

import json
from statistics import fmean

import pytest

from xtremely.bench import checkpoints
from xtremely.eval.tasks.task import find_training_task
from xtremely.kernels.guard import InputError


def headline(folder):
    """(task, language) -> score of a run's records that the benchmark scores."""
    records = json.loads((folder / "results.json").read_text())["records"]
    return {(r["task"], r["language"]): r["score"] for r in records if r["headline"]}


def test_checkpoints_are_trained_evaluated_and_described(tmp_path, tiny_bert, monkeypatch, capsys):
    sentences = "Anna\tB-PER\nlives\tO\nin\tO\nBerlin\tB-LOC\n\nRoma\tB-LOC\nis\tO\nold\tO\n\n"
    data = tmp_path / "data/panx"
    data.mkdir(parents=True)
    for name in ("train-en", "test-en", "test-de", "test-fr"):
        (data / f"{name}.tsv").write_text(sentences)
    monkeypatch.setattr(checkpoints, "MODEL", str(tiny_bert))
    monkeypatch.setattr(
        checkpoints, "PLANS", {"panx": checkpoints.plan(("panx", "train"), epochs=3)}
    )
    monkeypatch.setattr(checkpoints, "TASKS", ("panx",))
    out = tmp_path / "out"
    given = ["--data-root", str(tmp_path / "data"), "--out", str(out), "--workers", "1"]
    checkpoints.main(given)
    shown = (out / "tasks.md").read_text()
    assert capsys.readouterr().out.endswith(shown + "\n")
    scores = {precision: headline(out / precision) for precision in ("fp32", "int8")}
    exact, rounded = (fmean(one.values()) for one in scores.values())
    row = next(line for line in shown.splitlines() if line.startswith("| panx | test"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["panx", "test", "3 of 40", f"{exact:.1f}", f"{rounded:.1f}"]
    assert cells[5].startswith(f"{rounded - exact:+.1f}".replace("-", "−"))
    assert cells[6].split()[1] == f"{max(scores['fp32'].values()):.1f},"
    assert "| panx | 2 of panx (train) | 3 | 0 |" in shown
    record = json.loads((out / "trained/panx/model/training.json").read_text())
    # One step an epoch, with both sentences.
    assert record["steps"] == 3 and record["seed"] == 1
    # The same command again trains and evaluates nothing.
    before = (out / "int8/results.json").read_bytes()
    checkpoints.main(given)
    assert json.loads((out / "trained/panx/model/training.json").read_text()) == record
    assert (out / "int8/results.json").read_bytes() == before


def test_every_plan_can_be_trained_on_the_data_that_its_task_has():
    for name, recipe in checkpoints.PLANS.items():
        (phase,) = recipe.phases
        tasks = [find_training_task(source.task) for source in phase.sources]
        assert {task.checkpoint for task in tasks} == {name}
        for task, source in zip(tasks, phase.sources, strict=True):
            assert source.split in (*task.splits, *task.more_splits)
        assert phase.batch_size * phase.accumulation == 32


@pytest.mark.parametrize("count", ["0", "-1"])
def test_no_workers_are_refused(tmp_path, count):
    given = ["--data-root", str(tmp_path), "--out", str(tmp_path / "out"), "--workers", count]
    with pytest.raises(InputError, match="--workers"):
        checkpoints.main(given)


def test_a_failed_evaluation_makes_no_table(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "app", lambda *given, **options: 1)
    with pytest.raises(InputError, match="the evaluation in fp32 ended with exit code 1"):
        checkpoints.evaluated(["panx"], tmp_path, tmp_path)
