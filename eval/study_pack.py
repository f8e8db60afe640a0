"""A study in one file: grid, data and models, for a machine that has none of them.

The bundle is a .tar.xz with ``grid.toml``, ``data/`` (the files that the grid's cells read,
uncompressed, so that the whole compresses better) and ``models/NAME`` (the pieces that occur in the
grid's texts, see ``engine.compact``). What a cell computes from it is what it computes from the
originals, and its folder has the same name.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xtremely.engine.compact import compact, expand, pieces_in_use
from xtremely.engine.conventions import conventions
from xtremely.eval.examples import (
    Choices,
    Comparable,
    Examples,
    Parallel,
    Questions,
    Tagged,
    TextPairs,
    Texts,
)
from xtremely.eval.material import Reader
from xtremely.eval.readers import files_read, read_lines
from xtremely.eval.recipe import Recipe, settled
from xtremely.eval.study_cells import ORIGIN, Planned, locate_model, model_hash, plan
from xtremely.eval.study_data import barred, forget, sets_tested
from xtremely.eval.study_grid import Grid, read_grid
from xtremely.kernels.guard import InputError, require
from xtremely.retrieval.store import write_atomic

SUFFIX = ".tar.xz"
UNPACKED = "unpacked.json"  # written last into the folder of an unpacked bundle


def pack(path: Path, data_root: Path, bundle: Path, models: Path | None = None) -> dict[str, Any]:
    """Write a bundle.

    Args:
        path: the grid's file.
        data_root: where the data lies.
        bundle: the file to write, ``.tar.xz``.
        models: a folder with models by name, looked into first.

    Returns:
        ``pieces`` of every model, ``files`` of data and the bundle's ``bytes``.

    Raises:
        InputError: whatever keeps the grid from being run here, or a file that cannot be written.
    """
    require(bundle.name.endswith(SUFFIX), f"{bundle}: a bundle's name ends in {SUFFIX}")
    grid = read_grid(path)
    with tempfile.TemporaryDirectory(prefix="xtremely-pack-") as temporary:
        root = Path(temporary)
        shutil.copyfile(path, root / "grid.toml")
        forget()  # what was read before would not be heard of
        with files_read() as files:
            planned = plan(grid, data_root, models)
            texts = {name: _texts(grid, name, planned, data_root, models) for name in grid.models}
        for file in files:
            _copy_plain(file, root / "data" / file.relative_to(data_root))
        pieces = {}
        for name in grid.models:
            folder = locate_model(name, models)
            ids = pieces_in_use(folder, texts[name])
            compact(folder, ids, root / "models" / name)
            origin = {"model_hash": model_hash(folder)}
            (root / "models" / name / ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
            pieces[name] = len(ids)
        building = root / bundle.name
        with tarfile.open(building, "w:xz") as archive:
            for one in sorted(root.iterdir()):
                if one != building:
                    archive.add(one, one.name)
        write_atomic(bundle, building.read_bytes())
    return {"pieces": pieces, "files": len(files), "bytes": bundle.stat().st_size}


def unpack(bundle: Path, out: Path) -> Path:
    """Make a bundle's folder with ``grid.toml``, ``data`` and ordinary model folders, once.

    Raises:
        InputError: not a bundle, or one that is damaged.
    """
    if (out / UNPACKED).exists():
        return out
    shutil.rmtree(out, ignore_errors=True)
    packed = out / "packed"
    packed.mkdir(parents=True)
    try:
        with tarfile.open(bundle, "r:xz") as archive:
            archive.extractall(packed, filter="data")
        shutil.move(packed / "grid.toml", out / "grid.toml")
        shutil.move(packed / "data", out / "data")
        for folder in (packed / "models").iterdir():
            expand(folder, out / "models" / folder.name)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise InputError(f"{bundle}: not a whole bundle ({error}); pack it again") from error
    shutil.rmtree(packed)
    write_atomic(out / UNPACKED, b"{}\n")
    return out


def _copy_plain(source: Path, target: Path) -> None:
    """A text file, decompressed."""
    name = target.name.removesuffix(".gz").removesuffix(".bz2")
    lines = read_lines(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _texts(
    grid: Grid, model: str, planned: list[Planned], root: Path, models: Path | None
) -> dict[str, None]:
    """Every text that a model's cells tokenise, once."""
    prompt = conventions(locate_model(model, models), model).default_prompt
    found: dict[str, None] = {"a": None}  # by which the engine learns the special tokens
    for one in planned:
        if one.cell.model != model:
            continue
        if one.recipe is not None:
            for data in _trained_on(one.recipe, root):
                found.update(dict.fromkeys(texts_of(data, "")))
        for test in one.cell.tests:
            for _, _, data in sets_tested(test, barred(test, one.cell.phases), root):
                found.update(dict.fromkeys(texts_of(data, prompt)))
    return found


def _trained_on(recipe: Recipe, root: Path) -> Iterator[Examples]:
    """All examples that training looks at, dev examples included."""
    reader = Reader(root, recipe.seed)
    for phase in recipe.phases:
        material = reader.material(settled(phase))
        for part in (*material.sources, *material.dev):
            yield from part.languages.values()


def texts_of(data: Examples, prompt: str) -> Iterator[str]:
    """The texts of examples, as they are tokenised."""
    match data:
        case Tagged():
            for words in data.words:
                yield from words
        case TextPairs():
            yield from (*data.first, *data.second)
        case Texts():
            yield from data.texts
        case Questions():
            yield from data.contexts
            yield from (question.text for question in data.questions)
        case Choices():
            yield from data.texts
            for options in data.options:
                yield from options
        case Parallel():
            yield from (prompt + text for text in (*data.x, *data.en))
        case Comparable():
            yield from (prompt + text for text in (*data.x.texts, *data.en.texts))
