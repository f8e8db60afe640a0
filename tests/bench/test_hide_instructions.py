"""Newer instruction sets are hidden from every program, and nothing else changes."""

import ctypes
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.instruction_paths import processor_flags
from xtremely.bench.hide_instructions import LEVELS


def possible():
    """Whether Linux and this processor let a process fault on CPUID, and compilers are here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    if not (shutil.which("gcc") and shutil.which("g++")):
        return False
    arch_prctl, set_cpuid, allowed = 158, 0x1012, 1  # as it is already
    return ctypes.CDLL(None).syscall(arch_prctl, set_cpuid, allowed) == 0


pytestmark = pytest.mark.skipif(
    not possible(), reason="instruction sets cannot be hidden on this machine"
)
NEWER = {  # compiler macro -> flag of /proc/cpuinfo
    "AVX512F": "avx512f",
    "AVX512VNNI": "avx512_vnni",
    "AVX512BF16": "avx512_bf16",
    "AVXVNNI": "avx_vnni",
    "AMX_INT8": "amx_int8",
}
LEFT = {"avx2": set(), "avx512-vnni": {"AVX512F", "AVX512VNNI"}}


def hidden(level, folder, program):
    """A program that runs after ``start_again``."""
    start = f"start_again({level!r}, 'program', [])"
    (folder / "program.py").write_text(
        f"from xtremely.bench.hide_instructions import start_again\n{start}\n{program}\n"
    )
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "program"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("level", LEVELS)
def test_compilers_and_libraries_see_the_older_processor(level, tmp_path):
    program = """
import subprocess, numpy, torch
command = ["g++", "-march=native", "-dM", "-E", "-x", "c++", "/dev/null"]
print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
print("torch:", torch.backends.cpu.get_cpu_capability())
from xtremely.engine.backends.native.encoder import unavailable_reason
print("C++:", unavailable_reason(torch.device("cpu")))
"""
    done = hidden(level, tmp_path, program)
    assert done.returncode == 0, done.stderr
    macros = set(re.findall(r"#define __(\w+)__ 1", done.stdout))
    expected = {one for one in LEFT[level] if NEWER[one] in processor_flags()}
    assert macros & {*NEWER} == expected and {"AVX2", "FMA"} <= macros
    assert "C++: None\n" in done.stdout
    if level == "avx2":
        assert "torch: AVX2\n" in done.stdout


def test_a_real_fault_still_ends_the_program(tmp_path):
    done = hidden("avx2", tmp_path, "import ctypes; ctypes.string_at(0)")
    assert done.returncode == -signal.SIGSEGV


def test_without_a_compiler_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(tmp_path)))
    done = hidden("avx2", tmp_path, "")
    assert done.returncode != 0 and "--instructions needs gcc" in done.stderr
