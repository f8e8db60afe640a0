"""The GPU benchmark's logic, without a GPU: lengths, rows, stages on tiny shapes."""

import re

import pytest
import torch

from xtremely.bench import gpu, gpu_stages

CPU = torch.device("cpu")


def once(call):
    """A timer that runs the call and says two milliseconds."""
    call()
    return 2.0


@pytest.mark.parametrize("task", gpu_stages.HISTOGRAMS)
def test_lengths_follow_the_tasks_histogram(task):
    counts = {int(length): count for length, count in gpu_stages.HISTOGRAMS[task].items()}
    mean = sum(n * c for n, c in counts.items()) / sum(counts.values())
    lengths = gpu_stages.lengths_of(task, 20_000)
    assert lengths == sorted(lengths, reverse=True)
    assert 0.95 * 20_000 < sum(lengths) <= 20_000
    assert sum(lengths) / len(lengths) == pytest.approx(mean, rel=0.05)


def test_rates_and_shares_of_the_roofs_by_hand():
    roofs = {"copy": 4e9, "product": 8e9}
    good, bad = gpu_stages.compare(
        {"good": lambda: None, "bad": lambda: 1 / 0}, 8e6, 4e6, roofs, once, lambda _: ()
    )
    assert (good["gb_s"], good["of_copy"]) == (2.0, 0.5)  # 4 MB in 2 ms
    assert (good["tflop_s"], good["of_product"]) == (0.0, 0.5)  # 8 MFLOP in 2 ms
    assert bad == {"name": "bad", "unavailable": "ZeroDivisionError: division by zero"}


def test_a_kernel_is_broken_when_its_tests_fail_or_do_not_run(monkeypatch):
    codes = {"norm": (1, "E  too large an error"), "linear": (2, "ERROR collecting")}
    monkeypatch.setattr(gpu, "tests_of", lambda name: codes.get(name, (0, "passed")))
    monkeypatch.setattr(gpu, "tests_of_gpus", lambda: (1, "E  no such stream\n1 failed"))
    found = gpu.conformance()
    assert set(found["broken"]) == {"norm", "linear"}
    assert found["failed"]["norm"] == "E  too large an error"
    assert found["others"] == "1 failed" and "stream" in found["failed"]["others"]


def test_a_kernels_tests_are_its_own():
    code, output = gpu.tests_of("pooling", "--collect-only")
    names = [line for line in output.splitlines() if "::" in line]
    assert code == 0 and names
    assert all("[pooling-" in name for name in names)
    assert any("float32" in name or "fp32" in name for name in names)


def test_tests_that_need_a_gpu_are_found_and_pass_or_are_skipped():
    code, output = gpu.tests_of_gpus()
    passed, skipped = (
        sum(map(int, re.findall(rf"(\d+) {word}", output.splitlines()[-1])))
        for word in ("passed", "skipped")
    )
    assert code == 0 and passed + skipped >= 5
    assert passed if torch.cuda.is_available() else "needs a CUDA device" in output


def test_what_runs_on_a_broken_kernel_gets_no_speed_line(monkeypatch):
    monkeypatch.setattr(gpu_stages, "broken", {"linear_fp8"})
    names = ("xtremely triton", "xtremely triton, fp8", "xtremely torch", "transformers sdpa")
    uses = gpu_stages._kernels_of_encoder
    rows = gpu_stages.compare(dict.fromkeys(names, int), 1, 1, {}, once, uses)
    assert [row["name"] for row in rows if "ms" not in row] == ["xtremely triton, fp8"]
    assert rows[1]["unavailable"] == "withheld: linear_fp8 failed conformance"
    assert set().union(*map(uses, names[:3])) <= set(gpu.all_kernels())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_it_would_do(capsys):
    assert gpu.main(["--only", "attention"]) == 3
    assert (
        "no CUDA device; on one, this would run: conformance, attention" in capsys.readouterr().out
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="runs the interpreter's small shapes")
@pytest.mark.parametrize("stage", gpu_stages.STAGES)
def test_every_stage_times_our_kernels_and_at_least_one_peer(stage, monkeypatch):
    monkeypatch.setattr(gpu_stages, "SHAPES", {"tiny": (64, 2, 96, 1)})
    monkeypatch.setattr(gpu_stages, "TOKENS", 70)
    monkeypatch.setattr(gpu_stages, "HISTOGRAMS", {"bucc2018": {"3": 4, "11": 4}})
    monkeypatch.setattr(gpu_stages, "DENSE", {})
    monkeypatch.setattr(gpu_stages, "MINED", (30, 50))
    monkeypatch.setattr(torch, "compile", lambda function: function)
    for result in gpu_stages.STAGES[stage](CPU, torch.float16, {"copy": 1e9, "product": 1e9}, once):
        timed = {row["name"] for row in result["rows"] if "ms" in row}
        assert any(name.startswith("xtremely") for name in timed), result
        assert any(not name.startswith("xtremely") for name in timed), result


def test_every_shape_class_can_be_tuned_by_its_name():
    named = list(gpu.classes(torch.bfloat16))
    assert len({name for name, _ in named}) == len(named)
    for name, kernel in named:
        (only,) = kernel.tunings()
        assert name == f"{kernel.name}: {only.shape}"


def test_lines_say_what_a_contender_reached_or_why_it_could_not_run():
    row = {"name": "good", "ms": 2.0, "gb_s": 2000.0, "tflop_s": 3.5, "of_copy": 0.8}
    row |= {"of_product": 0.5, "peak_mb": 12.0, "tokens_s": 1_234_567}
    found = [{"shape": "base", "rows": [row, {"name": "bad", "unavailable": "not here"}]}]
    head, good, bad = gpu.lines("encoder", found)
    assert head == "encoder base"
    assert good.split()[:3] == ["good", "2.0000", "ms"] and "80 %" in good and "1,234,567" in good
    assert bad.split() == ["bad", "not", "here"]
