"""The shape of the project, checked rather than remembered."""

import ast
import subprocess
import sys
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
