"""Compilers that fail, hang or are killed, disks that are full, caches that cannot be written.

The compilers are shell scripts. They describe the processor as the real one does, and instead of
compiling they copy a library, or do worse.
"""

import os
import resource
import shutil
import stat
import subprocess
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from instruction_paths import missing

from xtremely.engine.backends.native import library as native_library
from xtremely.engine.backends.native.library import library
from xtremely.files.trust import sealed
from xtremely.kernels.guard import InputError

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
DESCRIBE = 'case "$*" in *-dM*) exec g++ "$@";; esac\n'  # the processor, by the real compiler


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A library as it comes from the compiler, without a seal."""
    path = tmp_path_factory.mktemp("made") / "made.so"
    path.write_bytes(Path(library()._name).read_bytes()[:-32])
    return path


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Makes a shell script the compiler."""

    def compiler(script):
        path = tmp_path / "cxx"
        path.write_text(f"#!/bin/sh\n{DESCRIBE}{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return path

    return compiler


def copies(made, before="true"):
    """A script that does something, then writes the library to its last argument."""
    return f'{before}\nfor to; do :; done\ncp {made} "$to"'


def left(fresh):
    return [path for path in fresh.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (
            "for n in 1 2 3 4 5; do echo line $n >&2; done; exit 3",
            r"cxx ended with 3, its last lines: line 3 \| line 4 \| line 5$",
        ),
        ("exit 1", "cxx ended with 1$"),
        ("kill -9 $$", "cxx was ended by SIGKILL$"),
        ("echo half > /dev/null; kill -15 $$", "cxx was ended by SIGTERM$"),
    ],
)
def test_a_compiler_that_fails_is_quoted(fresh, compiler, script, complaint):
    compiler(script)
    with pytest.raises(InputError, match=f"^needs a C.. compiler that works: .*{complaint}"):
        library()
    assert left(fresh) == []


def test_a_compiler_that_hangs_is_stopped_with_its_children(fresh, compiler, monkeypatch, tmp_path):
    compiler(f"sleep 60 & echo $! > {tmp_path}/child; wait")
    monkeypatch.setattr(native_library, "MAX_SECONDS", 1.0)
    with pytest.raises(InputError, match="cxx did not end in 1 seconds"):
        library()
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    for _ in range(100):
        if not child.exists() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the compiler's child lives on")
    assert left(fresh) == []


def test_what_is_no_program_is_no_compiler(fresh, monkeypatch, tmp_path):
    (tmp_path / "cxx").write_bytes(b"\x7fELF, or so it says")
    (tmp_path / "cxx").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    with pytest.raises(InputError, match=r"cxx cannot be started \(Exec format error\)"):
        library()
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(InputError, match="there is no no-such-compiler"):
        library()


def test_a_compiler_may_have_options(fresh, compiler, made, monkeypatch):
    path = compiler(copies(made, 'echo "$1" >&2; test "$1" = -DOPTION || exit 1'))
    monkeypatch.setenv("CXX", f"{path} -DOPTION")
    assert library().columns() in (8, 16, 32)


@contextmanager
def room_for(size):
    """No file may grow beyond so many bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_full_disk_leaves_nothing(fresh, compiler, made, share):
    """It is full while the compiler writes, or only for the seal."""
    compiler(copies(made))
    complaint = "ended with .*File size limit" if share < 1 else "File too large.*XTREMELY_CACHE"
    size = int(share * made.stat().st_size) + 16  # a seal has 32
    with room_for(size), pytest.raises(InputError, match=complaint):
        library()
    assert left(fresh) == []
    assert library().columns() in (8, 16, 32)


@as_root
def test_a_cache_that_cannot_be_written(fresh, made, monkeypatch):
    """Without a library it is refused, with one it is enough."""
    with TemporaryDirectory() as place:  # the tests' own folder is closed to others
        Path(place).chmod(0o755)
        shutil.copy(made, Path(place) / "made.so")
        monkeypatch.setenv("XTREMELY_CACHE", place)
        monkeypatch.setenv("CXX", f"{place}/cxx")
        Path(place, "cxx").write_text(f"#!/bin/sh\n{DESCRIBE}{copies(f'{place}/made.so')}")
        Path(place, "cxx").chmod(0o755)
        with another_user(), pytest.raises(InputError, match="cache it can write to .*Permission"):
            library()
        library()
        library.cache_clear()
        with another_user(), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert library().columns() in (8, 16, 32)


@contextmanager
def another_user():
    """This process has the rights of somebody else."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_two_that_compile_at_once_both_have_it(fresh, compiler, made):
    compiler(copies(made, "sleep 0.3"))
    with ThreadPoolExecutor(3) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [pool.submit(library.__wrapped__) for _ in range(3)]
        assert {one.result().columns() for one in found} <= {8, 16, 32}
    (only,) = left(fresh)
    assert sealed(only)


def test_a_library_for_another_processor_is_never_loaded(fresh, compiler, made, tmp_path):
    """In a cache that two machines share: each has its own file, whichever comes first."""
    source, trace = tmp_path / "foreign.cpp", tmp_path / "trace"
    source.write_text(
        "#include <cstdio>\n__attribute__((constructor)) void run() {"
        f' fclose(fopen("{trace}", "w")); }}'
    )
    foreign = tmp_path / "foreign.so"
    subprocess.run(["g++", "-shared", "-fPIC", str(source), "-o", str(foreign)], check=True)
    script = compiler(copies(made))
    script.write_text(
        script.read_text()
        .replace('exec g++ "$@"', 'g++ "$@" && echo "#define __AMX_TILE__ 1"')
        .replace(str(made), str(foreign))
    )
    with pytest.raises(AttributeError):  # the other machine loads it, and finds no function there
        library()
    assert trace.exists()
    trace.unlink()
    compiler(copies(made))
    library.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library().columns() in (8, 16, 32)
    assert not trace.exists() and len(left(fresh)) == 2


def test_the_cache_of_careless_makers_is_closed(fresh, compiler, made):
    """A group may write to a shared library: it is compiled anew, and closed."""
    compiler(copies(made))
    library()
    (only,) = left(fresh)
    only.chmod(0o664)
    library.cache_clear()
    with pytest.warns(UserWarning, match=r"others may write to it \(mode 664\).*compiled anew"):
        library()
    assert stat.S_IMODE(only.stat().st_mode) & 0o022 == 0
