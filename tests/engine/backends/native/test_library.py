"""Compiling the C++, and what is in the cache: ours and whole, or compiled anew."""

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from instruction_paths import PATHS, compiler_of, here, missing, uncompilable

from xtremely.engine.backends.native import encoder
from xtremely.engine.backends.native import library as native_library
from xtremely.engine.backends.native.encoder import unavailable_reason
from xtremely.engine.backends.native.library import library
from xtremely.engine.backends.select import open_backend
from xtremely.files.trust import distrust_reason, seal, sealed
from xtremely.kernels.guard import InputError

CPU = torch.device("cpu")
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 160}
compiles = pytest.mark.skipif(bool(missing()), reason=missing())
WARNINGS = ("-Wall", "-Wextra", "-Wno-maybe-uninitialized")  # the last one is of g++'s own headers
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@compiles
@pytest.mark.parametrize("path", PATHS)
def test_every_instruction_path_compiles_without_a_warning(path):
    if uncompilable(path):
        pytest.skip(uncompilable(path))
    source = native_library.SOURCES / "encoder.cpp"
    flags = ["-fsyntax-only", "-std=c++17", f"-march={path}", *WARNINGS]
    done = subprocess.run([compiler_of(path), *flags, source], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="session")
def made():
    """A library that was compiled for this processor."""
    return Path(library()._name)


@pytest.fixture
def kept(made, fresh, monkeypatch):
    """The cached library; the compiler has an easy time: it copies what it made before."""
    (fresh / "native").mkdir(parents=True)
    one = Path(shutil.copy(made, fresh / "native"))
    whole, run = one.read_bytes(), native_library._run

    def copy(*command):
        if "-shared" not in command:
            return run(*command)
        Path(command[-1]).write_bytes(whole[:-32])  # without its seal
        compiled.append(command)
        return ""

    compiled = []
    monkeypatch.setattr(native_library, "_run", copy)
    yield one, compiled


def loaded_from():
    """Files of this process's memory that are libraries from a cache."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in maps if "/native/" in line and ".so" in line}


@compiles
def test_the_self_check_passes():
    """Nothing here may be skipped because the C++ is wrong: where it compiles, it is right."""
    assert unavailable_reason(CPU) is None


@compiles
def test_it_is_compiled_once_and_kept(kept):
    path, compiled = kept
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library().columns() in (8, 16, 32)
    assert compiled == [] and [*path.parent.iterdir()] == [path]
    assert str(path) in loaded_from()


@compiles
def test_what_is_made_is_private_and_sealed(kept, fresh):
    path, _ = kept
    shutil.rmtree(fresh)
    before = os.umask(0)  # the most careless of users
    try:
        library()
    finally:
        os.umask(before)
    for one in (fresh, fresh / "native", path):
        assert distrust_reason(one) is None
    assert sealed(path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def half_of_a_page(path):
    path.write_bytes(path.read_bytes()[:-2000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0")


def unsealed(path):
    path.write_bytes(path.read_bytes()[:-32])


def another_ones(path):
    """A whole library, compiled for something else: its seal names that."""
    path.write_bytes(path.read_bytes()[:-32])
    seal(path, "0123456789abcdef.so")


def open_to_all(path):
    path.chmod(0o666)


def open_to_a_group(path):
    path.chmod(0o664)


def unreadable(path):
    path.chmod(0)
    if os.geteuid() == 0:
        cut(path)


def a_link(path):
    path.rename(path.parent.parent / "elsewhere.so")
    path.symlink_to(path.parent.parent / "elsewhere.so")


def a_dangling_link(path):
    path.unlink()
    path.symlink_to("nowhere.so")


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def of_another(path):
    os.chown(path, 1234, 1234)


def folder_open_to_all(path):
    path.parent.chmod(0o777)


DAMAGES = [
    cut, empty, half_of_a_page, flip, longer, unsealed, another_ones, open_to_all, open_to_a_group,
    unreadable, a_link, a_dangling_link, a_pipe, folder_open_to_all,
    pytest.param(of_another, marks=as_root),
]  # fmt: skip


@compiles
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_trusted_is_compiled_anew_and_that_is_said_once(kept, damage):
    path, compiled = kept
    damage(path)
    inode = path.lstat().st_ino
    with pytest.warns(UserWarning) as said:
        assert library().columns() in (8, 16, 32)
        library()
    assert len(said) == 1
    assert str(path) in str(said[0].message) and "compiled anew" in str(said[0].message)
    assert len(compiled) == 1
    assert path.lstat().st_ino != inode, "a file of its own, not the old one written over"
    for one in (path, path.parent):
        assert distrust_reason(one) is None
    assert sealed(path) and [*path.parent.iterdir()] == [path]
    library.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        library()
    assert len(compiled) == 1


@compiles
def test_a_planted_library_is_never_run(kept, tmp_path):
    """Code that runs as soon as it is loaded, under the name that would be loaded."""
    path, _ = kept
    source, trace = tmp_path / "planted.cpp", tmp_path / "trace"
    source.write_text(
        "#include <cstdio>\n__attribute__((constructor)) void run() {"
        f' fclose(fopen("{trace}", "w")); }}'
    )
    planted = tmp_path / "planted.so"
    subprocess.run(["g++", "-shared", "-fPIC", str(source), "-o", str(planted)], check=True)
    for change in (lambda p: None, lambda p: p.chmod(0o666), lambda p: seal(p, "another.so")):
        path.unlink()
        shutil.copyfile(planted, path)
        change(path)
        library.cache_clear()
        with pytest.warns(UserWarning, match="not loaded, but compiled anew"):
            library()
    assert not trace.exists()


@compiles
@as_root
@pytest.mark.parametrize("which", ["native", ""])
def test_a_folder_of_another_user_is_refused_and_left_alone(kept, make_tiny, which):
    path, compiled = kept
    folder = path.parent.parent / which
    os.chown(folder, 1234, 1234)
    mode = folder.stat().st_mode
    model = make_tiny("bert", **SIZES)
    with pytest.raises(InputError, match="it belongs to user 1234.*set XTREMELY_CACHE"):
        open_backend(model, "native", CPU, "fp32")
    with pytest.warns(UserWarning, match="without its C.., more slowly: .*belongs to user 1234"):
        assert open_backend(model, "auto", CPU, "fp32").name == "torch"
    assert folder.stat().st_mode == mode and not compiled


@compiles
def test_a_cache_in_which_anybody_may_rename_is_refused(kept, make_tiny):
    path, compiled = kept
    cache = path.parent.parent
    cache.chmod(0o777)
    with pytest.raises(InputError, match=r"others may write to it \(mode 777\)"):
        open_backend(make_tiny("bert", **SIZES), "native", CPU, "fp32")
    cache.chmod(0o1777)  # as /tmp: only owners may
    library()
    cache.chmod(0o775)  # as where every user has a group
    library.cache_clear()
    library()
    assert not compiled


@compiles
def test_a_killed_compilation_leaves_nothing_that_is_loaded(kept, monkeypatch):
    """It ends after half of the file was written; the next process compiles it again."""
    path, compiled = kept
    path.unlink()
    run = native_library._run

    def killed(*command):
        done = run(*command)
        if "-shared" in command:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(native_library, "_run", killed)
        library()
    assert not path.exists()
    assert library().columns() in (8, 16, 32) and len(compiled) == 2


@compiles
def test_a_library_is_named_by_all_that_it_was_compiled_for(kept, monkeypatch):
    """Another processor, compiler, flag or source never meets this one's file."""
    path, compiled = kept
    run = native_library._run

    def other(*command):
        said = run(*command)
        return said if "-shared" in command else said + "#define __AVX10_1__ 1\n"

    def flags(name):
        return (*native_library.FLAGS, name)

    for name, value in (("_run", other), ("FLAGS", flags("-DOTHER"))):
        library.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(native_library, name, value)
            library()
    assert len(compiled) == 2 and len({*path.parent.iterdir()}) == 3
    for other in [name for name in PATHS if here(name)][:2]:
        library(other)
    assert len(compiled) == 4 and len({*path.parent.iterdir()}) == 5


def changes_to(machine, *macros):
    """What makes this machine another, whose compiler says so of its processor."""
    return {
        "platform.machine": lambda: machine,
        "shutil.which": lambda name: name,
        "_run": lambda *command: "".join(f"#define {macro} 1\n" for macro in macros),
    }


def change(monkeypatch, changes):
    for name, value in changes.items():
        monkeypatch.setattr(f"xtremely.engine.backends.native.library.{name}", value)


@pytest.mark.parametrize(
    ("machine", "macros"),
    [
        ("x86_64", ("__AVX2__", "__FMA__")),
        ("AMD64", ("__AVX2__", "__FMA__")),
        ("aarch64", ("__ARM_NEON",)),
        ("arm64", ("__ARM_NEON",)),
    ],
)
def test_no_instruction_that_the_processor_lacks(fresh, monkeypatch, machine, macros):
    """``-march=native``, and nothing else, is what an engine runs on."""
    seen = []
    changes = changes_to(machine, *macros)
    describe = changes["_run"]

    def run(*command):
        seen.append([one for one in command if one.startswith("-m")])
        return describe()

    change(monkeypatch, {**changes, "_run": run})
    with pytest.raises(InputError):  # nothing was written
        library()
    assert seen == [["-march=native"], ["-march=native"]]


@pytest.mark.parametrize("granted", [True, False])
def test_amx_is_used_only_where_the_system_grants_it(fresh, monkeypatch, granted):
    seen = []
    changes = changes_to("x86_64", "__AVX2__", "__FMA__", "__AMX_INT8__")
    describe = changes["_run"]

    def run(*command):
        seen.append([one for one in command if one.startswith("-m")])
        return describe()

    change(monkeypatch, {**changes, "_run": run, "_granted_amx": lambda: granted})
    with pytest.raises(InputError):  # nothing was written
        library()
    assert seen[1] == (["-march=native"] if granted else ["-march=native", "-mno-amx-int8"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"platform.machine": lambda: "riscv64"},
            "needs a processor of the x86-64 line or aarch64, not riscv64",
        ),
        (
            {"shutil.which": lambda name: None},
            r"needs a C\+\+ compiler \(\$CXX, else g\+\+\); there is no g\+\+",
        ),
        (changes_to("x86_64", "__SSE2__"), "needs a processor with AVX2 and FMA"),
        (changes_to("aarch64", "__AVX2__", "__FMA__"), "needs a processor with NEON"),
        pytest.param(
            {"FLAGS": ("-no-such-flag",)},
            r"needs a C\+\+ compiler that works: .* its last lines: .*-no-such-flag",
            marks=compiles,
        ),
    ],
)
def test_where_it_does_not_run(fresh, make_tiny, monkeypatch, changes, complaint):
    change(monkeypatch, changes)
    folder = make_tiny("bert", **SIZES)
    with pytest.raises(InputError, match=f"native backend {complaint}.*use --backend torch, or"):
        open_backend(folder, "native", CPU, "fp32")
    with pytest.warns(UserWarning, match=f"without its C.., more slowly: .* {complaint}"):
        assert open_backend(folder, "auto", CPU, "fp32").name == "torch"


@compiles
@pytest.mark.parametrize("name", ["FLOOR", "mean"])
def test_a_library_that_computes_something_else_is_refused(kept, make_tiny, monkeypatch, name):
    """What its reference shifts GELU's results by, 0.17; and half of every state."""
    if name == "FLOOR":
        monkeypatch.setattr(encoder, "FLOOR", 0.5)
    else:
        run = encoder.NativeEncoder.__call__
        monkeypatch.setattr(
            encoder.NativeEncoder,
            "__call__",
            lambda self, *rest: {n: 0.5 * one for n, one in run(self, *rest).items()},
        )
    precision = "int8" if name == "FLOOR" else "fp32"
    with pytest.raises(InputError, match=f"differs from torch in {precision} by .* try another"):
        open_backend(make_tiny("bert", **SIZES), "native", CPU, precision)
