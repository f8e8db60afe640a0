"""Every setting of the process that a test leaves changed is seen, named, and put back."""

import locale
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from process_settings import SETTINGS, put_back, snapshot

CHANGES = {
    "torch's threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's default type": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "torch's gradients": lambda: torch.set_grad_enabled(False),
    "torch's deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "torch's precision of products": lambda: torch.set_float32_matmul_precision("medium"),
    "oneDNN": lambda: torch._C._set_mkldnn_enabled(False),
    "cuDNN's determinism": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "cuDNN's benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "numpy's errors": lambda: np.seterr(all="ignore"),
    "numpy's printing": lambda: np.set_printoptions(precision=3),
    "environment": lambda: os.environ.update(XTREMELY_CACHE="/elsewhere", HF_HUB_OFFLINE="0"),
    "current folder": lambda: os.chdir("/"),
    "mask of new files": lambda: os.umask(0o777),
    "search path": lambda: sys.path.append("/elsewhere"),
    "recursion limit": lambda: sys.setrecursionlimit(5000),
    "digits of integers": lambda: sys.set_int_max_str_digits(100_000),
    "locale": lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"),
    "level of logging": lambda: logging.root.setLevel(logging.DEBUG),
    "logging switched off": lambda: logging.disable(logging.CRITICAL),
    "interrupt": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "termination": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "alarm": lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN),
    "largest file": lambda: lower(resource.RLIMIT_FSIZE),
    "most memory": lambda: lower(resource.RLIMIT_AS),
    "open files": lambda: lower(resource.RLIMIT_NOFILE),
}


def lower(kind):
    soft, hard = resource.getrlimit(kind)
    soft = 2**44 if soft == resource.RLIM_INFINITY else soft - 1
    resource.setrlimit(kind, (soft, hard))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_changed_setting_is_named_and_put_back(name):
    before = snapshot()
    CHANGES[name]()
    assert any(said.startswith(f"{name}: ") and " -> " in said for said in put_back(before))
    assert snapshot() == before
    assert put_back(before) == []


def test_a_variable_that_was_removed_comes_back(monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", "/kept")
    before = snapshot()
    del os.environ["XTREMELY_CACHE"]
    assert put_back(before) == ["environment: XTREMELY_CACHE '/kept' -> None"]
    assert os.environ["XTREMELY_CACHE"] == "/kept"


def test_the_test_that_leaks_fails_and_the_next_one_does_not_notice(pytester_run):
    code, said = pytester_run(
        """
        import torch

        def test_first():
            torch.set_num_threads(torch.get_num_threads() + 2)

        def test_second():
            torch.set_num_threads(torch.get_num_threads() + 2)
        """
    )
    assert code == 1
    assert said.count("leaves settings of the process changed: torch's threads: 1 -> 3") >= 2
    assert "2 passed, 2 errors" in said


@pytest.fixture
def pytester_run(tmp_path):
    """Runs a test file under this suite's hooks in a process of its own."""
    here = Path(__file__).parent

    def run(text):
        (tmp_path / "test_leaks.py").write_text(textwrap.dedent(text))
        (tmp_path / "conftest.py").write_text((here / "conftest.py").read_text())
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(tmp_path / "none.ini")]
        (tmp_path / "none.ini").write_text(f"[pytest]\npythonpath = {here / 'helpers'}\n")
        done = subprocess.run(
            [*command, str(tmp_path)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return done.returncode, done.stdout

    return run
