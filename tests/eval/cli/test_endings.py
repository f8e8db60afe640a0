"""How commands end: one line and an exit code, whatever happened."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.utils import strip_ansi

from xtremely.eval.cli.endings import GOES_ON, NOTHING_KEPT, Signals, ending
from xtremely.kernels.guard import InputError, UsageError

RUN = """
import sys, time
from xtremely.engine.runtime import Engine
from xtremely.eval.cli.main import main
def pooled(*arguments, **options):
    print("started", flush=True)
    time.sleep(60)
Engine.pooled = pooled
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("command", "kept"), [("eval", GOES_ON), ("encode", NOTHING_KEPT)], ids=["eval", "encode"]
)
def test_signals_end_a_command_in_one_line(tiny_bert, tmp_path, number, code, command, kept):
    (tmp_path / "in.txt").write_text("one\n")
    places = {
        "eval": ["--out", tmp_path / "out"],
        "encode": ["--input", tmp_path / "in.txt", "--output", tmp_path / "out.npy"],
    }
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, command, "--model", tiny_bert, *places[command], "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, strip_ansi(errors)) == (code, f"error: interrupted; {kept}\n")
    if command == "encode":
        assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


@pytest.mark.parametrize("both", [False, True], ids=["output", "both"])
def test_a_reader_that_has_gone_ends_no_command(tiny_bert, tmp_path, both):
    """As in ``xtremely eval ... | head -1``: all that was to be written is there."""
    given = ["eval", "--model", tiny_bert, "--tasks", "mini", "--languages", "de", "--limit", "5"]
    code = "import sys; from xtremely.eval.cli.main import main; main(sys.argv[1:])"
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, given), "--out", tmp_path / "out"],
        stdout=writer,
        stderr=writer if both else subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=100,
    )
    os.close(writer)
    assert process.returncode == 0 and "error" not in (process.stderr or "")
    assert {"results.json", "report.html"} <= {one.name for one in (tmp_path / "out").iterdir()}


def test_an_output_that_cannot_be_written_is_one_line():
    code = "import sys; from xtremely.eval.cli.main import main; main(['models'])"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert "error: No space left on device" in strip_ansi(done.stderr)
    assert done.returncode != 0 and "Traceback" not in done.stderr


@pytest.fixture
def fails(xtremely, monkeypatch):
    """The command line, with a command that raises an exception."""

    def fails(error, *arguments):
        def list_models():
            raise error

        monkeypatch.setattr("xtremely.eval.cli.listings.print_models", list_models)
        return xtremely("models", *arguments)

    return fails


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a\nb"), 1, "a b"),
        (UsageError("\x1b[31mred"), 2, r"\x1b[31mred"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
        (EOFError("at 5"), 1, "a file ends too early (at 5); is it whole?"),
        (MemoryError(), 1, "out of memory (no more can be had); nothing was written"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: 9"), 1, "out of memory (Default"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "out of memory (CUDA out of memory)"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1, "No such file (x)"),
        (OSError(errno.ENOSPC, "No space left", "x"), 1, "No space left (x); nothing was written"),
    ],
)
def test_exceptions_end_in_one_line(fails, error, code, line):
    got, _, errors = fails(error)
    assert got == code and len(errors.splitlines()) == 1
    assert errors.startswith(f"error: {line}"), errors


def test_only_trouble_with_the_disk_speaks_of_what_is_kept():
    full = OSError(errno.ENOSPC, "No space left")
    absent = OSError(errno.ENOENT, "No such file")
    assert ending(full, "eval --out", Signals()) == (f"No space left; {GOES_ON}", 1)
    assert ending(absent, "eval --out", Signals()) == ("No such file", 1)


def test_what_is_kept_depends_on_the_command():
    said = {
        command: ending(MemoryError(), command, Signals())[0]
        for command in ("study run", "study pack", "index build", "index search", "train x.toml")
    }
    assert {command for command, text in said.items() if GOES_ON in text} == {
        "study run",
        "index build",
        "train x.toml",
    }


def test_a_bug_keeps_its_traceback(fails):
    with pytest.raises(ZeroDivisionError):
        fails(ZeroDivisionError())


def test_a_signal_that_a_library_hides_ends_the_command_all_the_same():
    seen = Signals()
    seen.number = signal.SIGTERM
    assert ending(ImportError("half loaded"), "tasks", seen) == (
        f"interrupted; {NOTHING_KEPT}",
        143,
    )


def test_handlers_are_put_back(fails):
    before = signal.getsignal(signal.SIGTERM)
    fails(InputError("x"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_workers_do_not_outlive_the_command(tmp_path):
    code = (
        "import multiprocessing, sys, time\n"
        "from xtremely.eval.cli import listings, main as cli\n"
        "def work():\n"
        "    worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    worker.start(); print(worker.pid, flush=True); worker.join()\n"
        "listings.print_models = work\n"
        "cli.main(['models'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in errors
    deadline = time.time() + 10
    while time.time() < deadline and Path(f"/proc/{worker}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.parametrize("command", ["xtremely tasks | head -1", "xtremely tasks | true"])
def test_a_reader_that_has_enough_is_no_trouble(command):
    call = f"{sys.executable} -c 'from xtremely.eval.cli.main import main; main([\"tasks\"])'"
    done = subprocess.run(
        ["bash", "-c", command.replace("xtremely tasks", call)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_cannot_show_a_character_is_no_trouble():
    code = "from xtremely.eval.cli.main import main; main(['tasks', '--data-root', '/tmp'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )
    assert done.returncode == 0 and done.stderr == b""


def test_the_command_line_is_there_before_torch():
    """Loading torch takes seconds, in which Ctrl-C would find nobody to hear it."""
    code = "import sys, xtremely.eval.cli.main; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"
