"""Nothing is skipped because the thing under test is broken: no skip asks this project's code."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "tests").rglob("test_*.py"))


def ours(tree):
    """Names that a file imports from this project, or assigns from such names."""
    found = {"xtremely"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xtremely"):
            found |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and names(node.value) & found:
            found |= {one for target in node.targets for one in names(target)}
    return found


def names(node):
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def called(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr


def conditions(tree):
    """The line and the condition of every skip."""
    for node in ast.walk(tree):
        if called(node) == "skipif":
            yield node.lineno, node.args[0]
        if isinstance(node, (ast.If, ast.Try)):
            skips = [one for part in node.body for one in ast.walk(part) if called(one) == "skip"]
            if isinstance(node, ast.Try):
                caught = [one for part in node.handlers for one in ast.walk(part)]
                assert not [one for one in caught if called(one) == "skip"], node.lineno
            elif skips:
                yield node.lineno, node.test


def wrong(text, required=()):
    """Lines whose skip depends on this project, or on a library that is always there."""
    tree = ast.parse(text)
    ask = [line for line, condition in conditions(tree) if names(condition) & ours(tree)]
    for node in ast.walk(tree):
        if called(node) == "importorskip" and node.args[0].value.split(".")[0] in required:
            ask.append(node.lineno)
    return ask


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_skips_depend_on_the_machine_only(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {one.partition(">")[0].replace("-", "_") for one in project["dependencies"]}
    assert wrong(path.read_text(encoding="utf-8"), required) == []


def test_a_skip_that_asks_the_code_under_test_is_found():
    text = """
import pytest, torch
from xtremely.engine.backends.native.encoder import lacking
from xtremely.engine import other as renamed
HERE = lacking("cpu")
mark = pytest.mark.skipif(bool(HERE), reason="x")
fine = pytest.mark.skipif(torch.cuda.is_available(), reason="x")
def test_a():
    if renamed.count():
        pytest.skip("x")
    if torch.cuda.is_available():
        pytest.skip("x")
    pytest.importorskip("torch")
    pytest.importorskip("ray")
"""
    assert wrong(text, {"torch"}) == [6, 9, 13]
