"""The shape of the project, checked rather than remembered."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("kernels", "files", "engine", "retrieval", "eval", "bench")
MAY_IMPORT = {
    "kernels": {"kernels"},
    "files": {"files", "kernels"},
    "engine": {"engine", "files", "kernels"},
    "retrieval": {"retrieval", "files", "kernels"},
    "eval": {"eval", "engine", "retrieval", "files", "kernels"},
    "bench": set(FOLDERS),
}
# Rooms of the large folders, lowest first: a room imports itself and what stands before it. A name
# with a dot is a single module.
ROOMS = {
    "engine": (
        "foreign.py",
        "transfer.py",
        "config_json.py",
        "devices.py",
        "text",
        "models",
        "quantization",
        "hub",
        "backends",
        "training",
        "runtime.py",
        "processes.py",
        "adapters.py",
    ),
    "eval": (
        "plain.py",
        "workers.py",
        "ray_pool.py",
        "data",
        "tasks",
        "scoring",
        "methods",
        "check",
        "run",
        "report",
        "compare",
        "training",
        "mining",
        "study",
        "cli",
    ),
}
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> list[str]:
    """Every absolute module name that a file imports, at any depth."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_the_arrows_allow(path):
    folder = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "xtremely":
            assert parts[1] in MAY_IMPORT[folder], f"{path.name} imports {name}"
            private = parts[-1].startswith("_")
            assert not private or path.stem == parts[-1][1:], f"{name} is private"


def room(place: str) -> str:
    """The room of a dotted name or path without the package's name, such as engine.text.batch."""
    folder, rest = place.split("/")[0], place.split("/")[1:]
    return rest[0] if len(rest) > 1 else f"{rest[0]}.py" if folder in ROOMS and rest else ""


def imported_places(path: Path) -> list[str]:
    """The project's own modules that a file imports, as paths without a suffix."""
    places = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("xtremely."):
            place = node.module.removeprefix("xtremely.").replace(".", "/")
            inside = [f"{place}/{alias.name}" for alias in node.names]
            places += inside if (ROOT / place).is_dir() else [place]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("xtremely.")]
            places += [name.removeprefix("xtremely.").replace(".", "/") for name in names]
    return places


@pytest.mark.parametrize("folder", ROOMS)
def test_every_room_has_its_place_in_the_order(folder):
    found = {room(str(p.relative_to(ROOT).with_suffix(""))) for p in (ROOT / folder).rglob("*.py")}
    assert found == set(ROOMS[folder])


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.parts[len(ROOT.parts)] in ROOMS], ids=lambda p: p.stem
)
def test_a_room_imports_only_rooms_below_it(path):
    here = str(path.relative_to(ROOT).with_suffix(""))
    folder = here.split("/")[0]
    order = ROOMS[folder]
    for place in imported_places(path):
        if place.split("/")[0] == folder:
            assert order.index(room(place)) <= order.index(room(here)), f"{here} imports {place}"


def test_no_modules_import_each_other_in_a_circle():
    modules = {str(path.relative_to(ROOT).with_suffix("")): path for path in SOURCES}
    imports = {name: set(imported_places(path)) & set(modules) for name, path in modules.items()}
    while leaves := [name for name, others in imports.items() if not others - {name}]:
        for leaf in leaves:
            del imports[leaf]
        for others in imports.values():
            others.difference_update(leaves)
    assert not imports


def test_every_folder_of_modules_is_installed():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {path.parent.relative_to(ROOT) for path in SOURCES}
    assert {".".join(["xtremely", *folder.parts]) for folder in found} <= set(stated)


@pytest.mark.parametrize("folder", ["kernels"])
def test_kernels_import_torch_and_nothing_else_from_outside(folder):
    allowed = {"torch", "triton", "xtremely", "__future__", *sys.stdlib_module_names}
    for path in (ROOT / folder).rglob("*.py"):
        assert {name.split(".")[0] for name in imported(path)} <= allowed, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_stays_readable_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_no_folder_is_a_regular_package():
    assert not [p for p in ROOT.glob("[a-z]*/**/__init__.py") if ".venv" not in p.parts]


def test_transformers_does_not_mistake_our_kernels_folder_for_its_own():
    """transformers probes for a top-level package called kernels; ours lies in the way."""
    code = (
        "import sys, transformers; from transformers import XLMRobertaModel;"
        "import xtremely.kernels.packing;"
        "ours = [name for name, module in sys.modules.items() if name.split('.')[0] == 'kernels'"
        " and 'site-packages' not in str(getattr(module, '__file__', None) or 'site-packages')];"
        "assert not ours, ours"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
