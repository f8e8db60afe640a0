"""A test that ends its process takes no other with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parent / "helpers"
CONFTEST = """
from pathlib import Path
import apart

def pytest_runtest_protocol(item, nextitem):
    return apart.protocol(item, nextitem, Path(__file__).parent)
"""
TESTS = """
import ctypes, os, pytest, signal

@pytest.fixture(scope="module")
def place():
    print("made once")
    yield os.getpid()

def test_before(place):
    assert os.getpid() == place != int(os.environ["PARENT"])

def test_still_the_same_worker(place):
    assert os.getpid() == place

def test_abort():
    print("last words", flush=True)
    os.abort()

def test_segfault():
    ctypes.string_at(0)

def test_exit():
    os._exit(0)

def test_killed():
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.parametrize("n", [1, 2])
def test_after(n, place):
    assert n == 1, "two is wrong"

def test_left_out():
    pytest.skip("for a reason")
"""


@pytest.mark.parametrize("options", [[], ["-n2", "--dist=worksteal"]], ids=["one", "two workers"])
def test_crashes_fail_their_own_tests_and_no_others(tmp_path, options):
    folder = tmp_path / "risky"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_risky.py").write_text(TESTS)
    (tmp_path / "test_safe.py").write_text("def test_safe():\n    assert True\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib -q\n")
    environment = {name: value for name, value in os.environ.items() if "XTREMELY" not in name}
    environment["PYTHONPATH"] = str(HELPERS)
    code = (
        "import os, sys, pytest; os.environ['PARENT'] = str(os.getpid());"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "5 failed, 4 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    for name, how in (("abort", "SIGABRT"), ("segfault", "SIGSEGV"), ("killed", "SIGKILL")):
        assert f"test_{name} " in done.stdout
        assert f"ended with {how}" in done.stdout
    assert "ended with exit code 0" in done.stdout
    assert "two is wrong" in done.stdout and done.returncode == 1
