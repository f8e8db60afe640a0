"""The measuring itself, on a clock that contenders wind on by hand."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xtremely.bench import encoders, workloads
from xtremely.bench.external_env import LLAMA_CPP
from xtremely.bench.harness import Contender, Row, Spread, measure, others_share, row_json
from xtremely.bench.machine import busy_seconds, slug
from xtremely.engine.models import bert, modernbert
from xtremely.eval.check.memory import watch
from xtremely.kernels.guard import InputError

TEXTS = ["one", "two words", "three more words"]


def unit_vectors(count=len(TEXTS)):
    vectors = np.random.default_rng(0).normal(size=(count, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def contender(name, clock, seconds, vectors=None, log=None):
    """One whose nth call takes the nth of ``seconds``; the first call is the warm-up."""
    left = iter(seconds)

    def embed(texts):
        assert texts == TEXTS
        clock.now += next(left)
        if log is not None:
            log.append(name)
        return unit_vectors() if vectors is None else vectors

    return Contender(name, embed)


def test_seconds_are_those_of_the_rounds_without_the_warm_up():
    clock = Clock()
    rows = measure(
        [contender("a", clock, [99, 2, 4, 3]), contender("b", clock, [99, 1, 1, 1])],
        TEXTS,
        rounds=3,
        clock=clock,
    )
    assert rows[0].seconds == [2, 4, 3]
    assert rows[1].seconds == [1, 1, 1]


def test_preparation_is_outside_the_clock():
    clock = Clock()

    def prepare(number=0):
        clock.now += 1000

    slow_start = Contender("a", contender("a", clock, [5, 2, 2]).embed, before=prepare)
    (row,) = measure([slow_start], TEXTS, rounds=2, clock=clock, each_round=prepare)
    assert row.seconds == [2, 2]


def test_order_rotates_and_everyone_runs_once_a_round():
    clock, log = Clock(), []
    names = ["a", "b", "c"]
    measure(
        [contender(name, clock, [1] * 5, log=log) for name in names],
        TEXTS,
        rounds=4,
        clock=clock,
    )
    assert "".join(log) == "abc" + "abc" + "bca" + "cab" + "abc"


def test_ratios_are_taken_round_by_round_then_the_median():
    ours = Row("ours", seconds=[1, 10, 2])
    base = Row("base", seconds=[2, 15, 8])
    assert ours.ratio(base) == Spread(median=2, low=1.5, high=4)
    assert ours.per_second(20) == Spread(median=10, low=2, high=20)


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        (-unit_vectors(), "mean cosine -1.0000 is below 0.99"),
        (unit_vectors()[::-1], "is below 0.99"),
        (2 * unit_vectors(), "not all of length 1"),
        (unit_vectors() * math.nan, "not all of length 1"),
        (unit_vectors(2), "shape (2, 8), expected (3, 8)"),
    ],
)
def test_gate_withholds_the_speed_of_other_embeddings(vectors, why):
    clock, log = Clock(), []
    good = contender("good", clock, [1] * 3)
    bad = contender("bad", clock, [1] * 3, vectors, log)
    rows = measure([good, bad], TEXTS, rounds=2, clock=clock)
    assert rows[0].withheld == "" and rows[0].seconds == [1, 1]
    assert why in rows[1].withheld
    assert rows[1].seconds == [] and log == ["bad"]
    shown = row_json(rows[1], 10, 3, rows[0], 1.0, 1.0)
    assert "tokens_per_second" not in shown and shown["withheld"]


def test_gate_lets_rounding_noise_pass():
    clock = Clock()
    noisy = unit_vectors() + 1e-4
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    rows = measure(
        [contender("a", clock, [1] * 2), contender("b", clock, [1] * 2, noisy)],
        TEXTS,
        rounds=1,
        clock=clock,
    )
    assert not rows[1].withheld
    assert 0.99 < rows[1].cosine_min <= rows[1].cosine_mean < 1


def test_a_reference_that_is_no_embedding_stops_the_run():
    clock = Clock()
    with pytest.raises(InputError, match="reference, a: embeddings are not all of length 1"):
        measure([contender("a", clock, [1], 2 * unit_vectors())], TEXTS, rounds=1, clock=clock)


def test_no_rounds_are_refused():
    with pytest.raises(InputError, match="at least 1"):
        measure([contender("a", Clock(), [])], TEXTS, rounds=0)


def test_row_without_a_baseline_has_no_ratio():
    row = Row("a", 1.0, 1.0, seconds=[2.0, 4.0, 2.0], others=[0.1, None, 0.2])
    shown = row_json(row, 100, 3, Row("base", withheld="wrong"), 2.0, 1000.0)
    assert shown["ratio"] is None
    assert shown["tokens_per_second"] == {"median": 50.0, "low": 25.0, "high": 50.0}
    assert shown["share_of_limit"] == 0.1
    assert shown["others"] == [0.1, None, 0.2]


def test_load_of_others_leaves_out_our_own(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert others_share(100.0, 112.0, own=10.0, elapsed=5.0) == pytest.approx(0.1)
    assert others_share(100.0, 109.0, own=10.0, elapsed=5.0) == 0
    assert others_share(None, None, own=10.0, elapsed=5.0) is None


def test_busy_seconds_sum_the_working_fields(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 3 9999 8888 4 5 6 7 8\ncpu0 1 1 1 1\n")
    monkeypatch.setattr("xtremely.bench.machine._STAT", stat)
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert busy_seconds() == pytest.approx((100 + 20 + 3 + 4 + 5 + 6) / 100)
    monkeypatch.setattr("xtremely.bench.machine._STAT", tmp_path / "absent")
    assert busy_seconds() is None


def test_flop_per_token_of_e5_small():
    config = replace(bert.FAMILY.native.trial, layers=12, hidden=384, intermediate=1536)
    linear = encoders.flop_per_token(config, np.array([1])) - 12 * 4 * 384
    assert linear == pytest.approx(42.47e6, rel=1e-3)
    # Two texts of 10 and 30 tokens: attention sees 1000 pairs, 25 a token.
    both = encoders.flop_per_token(config, np.array([10, 30]))
    assert both - linear == pytest.approx(12 * 4 * 384 * 25)


def test_flop_per_token_of_a_gated_model_with_windows():
    config = replace(
        modernbert.FAMILY.native.trial, layers=2, hidden=64, intermediate=96, windows=(None, 3)
    )
    lengths = np.array([2, 4, 10])
    pairs = {None: 4 + 16 + 100, 3: 4 + 16 + 58}  # 10 tokens: 4 + 5 + 6, four times 7, 6 + 5 + 4
    expected = 2 * 2 * (4 * 64 * 64 + 3 * 64 * 96) + 4 * 64 * sum(pairs.values()) / 16
    assert encoders.flop_per_token(config, lengths) == pytest.approx(expected)


def words(texts):
    """Stands in for a tokenizer: two specials and a token a word."""
    return np.array([2 + len(text.split()) for text in texts])


def fake(name, sign=1):
    return Contender(name, lambda texts: sign * unit_vectors(len(texts)))


NAMES = ("transformers eager unsorted", "xtremely packed", "transformers sdpa sorted", "other")

WRONG = "sentence-transformers default"


class FakeContender:
    """Contenders that need no process; one of them is wrong."""

    def __init__(self, model, name, scratch, python, prompt):
        self.name = name

    def __call__(self, budget):
        return fake(self.name, -1 if self.name == WRONG else 1)

    def peak(self):
        return len(self.name)

    def close(self):
        pass


@pytest.fixture
def fake_run(monkeypatch, tmp_path):
    """The command line without a model: contenders are fake, one of them wrong."""
    config = {
        "model_type": "bert",
        "num_attention_heads": 2,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "intermediate_size": 16,
        "vocab_size": 10,
        "max_position_embeddings": 512,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    engine = SimpleNamespace(
        name="fake",
        model_hash="0" * 64,
        folder=tmp_path,
        conventions=SimpleNamespace(default_prompt="query: "),
        backend=SimpleNamespace(device=torch.device("cpu"), precision="fp32"),
        tokenizer=lambda texts: SimpleNamespace(lengths=words(texts)),
    )
    monkeypatch.setattr(encoders.Engine, "load", lambda model, **_: engine)
    monkeypatch.setattr(encoders, "RESULTS", tmp_path)
    monkeypatch.setattr(encoders, "names", lambda scratch, engine: [*NAMES, WRONG])
    monkeypatch.setattr(encoders, "spawn", FakeContender)
    monkeypatch.setattr(encoders, "convert", lambda *arguments: None)
    monkeypatch.setattr(encoders.machine, "gemm_rate", lambda *shape: 1e11)
    return tmp_path


def test_last_line_is_json_and_names_the_kept_file(fake_run, capsys):
    encoders.main(["--only", "short", "--sentences", "20", "--rounds", "2"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    (short,) = last["workloads"]
    assert short["source"].startswith("mini suite (not XTREME)")
    assert short["withheld"] == {WRONG: "mean cosine -1.0000 is below 0.99"}
    assert set(short["tokens_per_second"]) == set(NAMES)
    assert set(short["xtremely_over"]) == {*NAMES} - {"xtremely packed"}
    kept = json.loads((fake_run / last["file"]).read_text())
    first = kept["results"][0]["rows"][0]
    assert (first["name"], first["peak_mb"]) == (NAMES[0], len(NAMES[0]))
    assert len(first["seconds"]) == 2
    assert set(kept["results"][0]["tuning"]) == {*NAMES[1:]}


def test_llama_cpp_is_given_small_batches_only(fake_run, monkeypatch, capsys):
    monkeypatch.setattr(encoders, "names", lambda scratch, engine: [*NAMES, LLAMA_CPP])
    encoders.main(["--only", "short", "--sentences", "20", "--rounds", "1"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    tuning = json.loads((fake_run / last["file"]).read_text())["results"][0]["tuning"]
    assert {*tuning["other"]["seconds"]} == {"512", "1024", "8192"}
    assert {*tuning[LLAMA_CPP]["seconds"]} == {"512", "1024"}


def test_contenders_are_chosen_by_name_beside_the_reference_ours_and_the_baseline(fake_run, capsys):
    few = ["--only", "short", "--sentences", "20", "--rounds", "1", "--contenders"]
    encoders.main([*few, "other"])
    (short,) = json.loads(capsys.readouterr().out.splitlines()[-1])["workloads"]
    assert set(short["tokens_per_second"]) == set(NAMES) and not short["withheld"]
    with pytest.raises(InputError, match="no contender otter; legal: transformers eager"):
        encoders.main([*few, "other,otter"])


def test_peers_on_a_cpu_are_not_dropped_in_silence_on_a_gpu(fake_run):
    encoders.Engine.load("fake").backend.device = torch.device("cuda")
    with pytest.raises(InputError, match="--external-python is for peers on a CPU"):
        encoders.main(["--only", "short", "--external-python", "python"])


def test_tokens_are_real_ones_with_specials_and_prompt(fake_run, capsys):
    encoders.main(["--only", "short", "--sentences", "20", "--rounds", "1"])
    (short,) = json.loads(capsys.readouterr().out.splitlines()[-1])["workloads"]
    texts = workloads.tatoeba(None, 20).texts
    assert short["tokens"] == sum(3 + len(text.split()) for text in texts)


def test_a_second_run_of_a_day_overwrites_nothing(fake_run, capsys):
    files = []
    for _ in range(2):
        encoders.main(["--only", "long", "--passages", "2", "--rounds", "1"])
        files.append(json.loads(capsys.readouterr().out.splitlines()[-1])["file"])
    assert files[0] != files[1]
    assert all((fake_run / name).exists() for name in files)


def test_sentences_are_seeded_unsorted_and_apart_from_the_tuning_ones():
    first, again = workloads.tatoeba(None, 50), workloads.tatoeba(None, 50)
    other = workloads.tatoeba(None, 50, seed=1)
    assert first == again and first.texts != other.texts
    assert len(first.texts) == 50 and len(first.tuning) == 25
    assert not set(first.texts) & set(first.tuning)
    assert first.texts != sorted(first.texts) and first.texts != sorted(first.texts, key=len)
    assert "mini" in first.source and "repeated" not in first.source


def test_too_few_texts_are_repeated_and_said_so():
    workload = workloads.tatoeba(None, 5000)
    assert len(workload.texts) == 5000
    assert workload.source.endswith("repeated")


def test_passages_have_the_wanted_length(tmp_path):
    (tmp_path / "xquad").mkdir()
    paragraphs = [{"context": f"{n} " + "word " * n} for n in range(200, 500, 10)]
    (tmp_path / "xquad" / "xquad.en.json").write_text(
        json.dumps({"data": [{"paragraphs": paragraphs}]})
    )
    workload = workloads.passages(tmp_path, 6, words)
    lengths = words(workload.texts + workload.tuning)
    assert len(workload.texts) == 6 and lengths.min() >= 280 and lengths.max() <= 420
    joined = workloads.passages(None, 4, words)
    assert words(joined.texts).min() >= 280 - 2 * 60 and "joined" in joined.source


@pytest.mark.parametrize("read", [workloads.tatoeba, lambda r, n: workloads.passages(r, n, words)])
def test_a_data_root_without_the_texts_is_an_error(read, tmp_path):
    with pytest.raises(InputError, match="under the data root"):
        read(tmp_path, 5)


def test_memory_of_a_command_is_measured_and_its_exit_code_kept():
    """In a process of its own: a child's peak begins with what its parent held."""
    code = "import sys; block = bytearray(200_000_000); print('hello'); sys.exit(3)"
    command = [sys.executable, "-m", "xtremely.bench.memory", "--", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert lines[0] == "hello"
    measured = json.loads(lines[-1])
    assert 200 < measured["peak_mb"] < 2000 and measured["exit"] == 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells it")
def test_memory_that_is_added_is_the_peak_since_then_not_what_is_left():
    bytearray(300_000_000)  # an earlier peak
    added = watch(os.getpid())
    bytearray(200_000_000)
    assert 190 < added() < 230


def test_slug_is_fit_for_a_file_name():
    assert slug("Intel(R) Xeon(R) @ 2.0GHz") == "intel-r-xeon-r-2-0ghz"


@pytest.mark.parametrize(("until", "rounds"), [(0.0, 3), (50.0, 4), (51.0, 5), (1e9, 6)])
def test_no_round_begins_when_the_time_is_up(until, rounds):
    """Ten seconds for the first runs, then ten a round; three rounds there always are."""
    clock, seen = Clock(), []
    rows = measure(
        [contender(name, clock, [10 if name == "a" else 0, *[5] * 6]) for name in "ab"],
        TEXTS,
        rounds=6,
        clock=clock,
        each_run=lambda row: seen.append((row.name, len(row.seconds))),
        until=until,
    )
    assert [len(row.seconds) for row in rows] == [rounds] * 2
    assert len(seen) == 2 * rounds and seen[:3] == [("a", 1), ("b", 1), ("b", 2)]
