"""Packing a study into one file: grid, data and models, for a machine that has none of them.

The bundle is a .tar.xz. It holds ``grid.toml``, ``data/`` (the files that the grid's cells read,
uncompressed, as the whole archive then compresses better) and ``models/NAME`` (with the vocabulary
cut to the grid's texts, see ``hub.compact``; ``names.json`` maps models to folders). A cell has the
same result from the bundle as from the originals, and the same folder name. ``unpack`` is the
reverse.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xtremely.engine.hub.compact import compact, pieces_in_use
from xtremely.engine.hub.conventions import conventions
from xtremely.eval.data.examples import Examples
from xtremely.eval.data.readers import read_lines
from xtremely.eval.study.cells import NAMES, ORIGIN, Planned, locate_model, model_hash, plan
from xtremely.eval.study.data import barred, sets_tested
from xtremely.eval.study.grid import read_grid
from xtremely.eval.tasks.task import EmbeddingRules, find_task, find_training_task
from xtremely.eval.training.data import Reader, dev_of
from xtremely.eval.training.recipe import Recipe, settled
from xtremely.files.folders import check_outputs
from xtremely.files.writing import check_file, written_whole
from xtremely.kernels.guard import InputError, require

SUFFIX = ".tar.xz"
TABLE = ".parquet"


def pack(
    path: Path,
    data_root: Path,
    bundle: Path,
    models: Path | None = None,
    allow_pickle: bool = False,
) -> dict[str, Any]:
    """Write a bundle; the same content gives the same bytes.

    Args:
        path: the grid's file.
        data_root: folder with the data.
        bundle: the file to write, ``.tar.xz``.
        models: folder with models by name, searched first.
        allow_pickle: whether pickled weights of models may be read.

    Returns:
        ``pieces``: vocabulary size of every model; ``files``: number of data files; ``bytes``: the
        bundle's size.

    Raises:
        InputError: the grid cannot be run here, or the file cannot be written.
    """
    require(bundle.name.endswith(SUFFIX), f"{bundle}: a bundle's name ends in {SUFFIX}")
    check_outputs({"--out": bundle}, {"the grid": path})
    grid = read_grid(path)
    check_file(bundle, "--out", make_folder=True)
    with tempfile.TemporaryDirectory(prefix="xtremely-pack-") as temporary:
        root = Path(temporary)
        shutil.copyfile(path, root / "grid.toml")
        planned = plan(grid, data_root, models, allow_pickle)
        folders = {name: locate_model(name, models, allow_pickle) for name in grid.models}
        texts = {name: _texts(name, folders[name], planned, data_root) for name in grid.models}
        files = _files(planned, data_root)
        check_outputs({"--out": bundle}, {str(file): file for file in files})
        for file in files:
            _copy(file, root / "data" / file.relative_to(data_root))
        names = {name: folder_name(name) for name in grid.models}
        pieces = {}
        for name in grid.models:
            folder = folders[name]
            ids = pieces_in_use(folder, texts[name])
            compact(folder, ids, root / "models" / names[name])
            origin = {"model_hash": model_hash(folder)}
            origin_file = root / "models" / names[name] / ORIGIN
            origin_file.write_text(json.dumps(origin), encoding="utf-8")
            pieces[name] = len(ids)
        (root / "models" / NAMES).write_text(json.dumps(names), encoding="utf-8")
        _check_arrival(planned, root, data_root)
        with written_whole(bundle) as building, tarfile.open(building, "w:xz") as archive:
            for one in sorted(root.iterdir()):
                archive.add(one, one.name, filter=_of_nobody)
    return {"pieces": pieces, "files": len(files), "bytes": bundle.stat().st_size}


def folder_name(model: str) -> str:
    """The name of a model's folder in a bundle: hub names and paths become one plain name."""
    if re.fullmatch(r"[\w-][\w.-]{,99}", model) and model != NAMES:
        return model
    plain = re.sub(r"[^\w-]+", "-", model).strip("-")[-60:]
    return f"{plain}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def _check_arrival(planned: list[Planned], root: Path, data_root: Path) -> None:
    """Raise InputError unless the bundle's content gives the same cells as the originals."""
    try:
        arrived = plan(read_grid(root / "grid.toml"), root / "data", root / "models")
        same = [one.name for one in arrived] == [one.name for one in planned]
    except InputError as error:
        raise InputError(
            f"{data_root}: not all of its data can be put into a bundle ({error}); only text files"
            " and parquet files can"
        ) from error
    require(same, f"{data_root}: in a bundle its data would make other cells than here")


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A bundle's member without user, time stamp and file mode."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def _copy(source: Path, target: Path) -> None:
    """Copy a table as it is, or a text file decompressed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == TABLE:
        shutil.copyfile(source, target)
        return
    name = target.name.removesuffix(".gz").removesuffix(".bz2")
    lines = read_lines(source)
    target.with_name(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _files(planned: list[Planned], root: Path) -> set[Path]:
    """The files that cells are trained and tested on, dev files included."""
    found: set[Path] = set()
    for one in planned:
        phases = one.recipe.phases if one.recipe else ()
        for phase, source in ((of, source) for of in phases for source in of.sources):
            task = find_training_task(source.task)
            dev, looked_at = dev_of(source, phase.sources, root, phase.dev_languages)
            sets = [(code, source.split) for code in source.languages]
            for code, split in (*sets, *((code, dev) for code in looked_at)):
                found.update(task.files(root, code, split))
        for test in one.cell.tests:
            for code, split, _ in sets_tested(test, barred(test, one.cell.phases), root):
                found.update(find_task(test.task).files(root, code, split))
    return found


def _texts(model: str, folder: Path, planned: list[Planned], root: Path) -> dict[str, None]:
    """Every text that a model's cells tokenise, once."""
    own = conventions(folder, model)
    prompts = dict.fromkeys((own.default_prompt, *own.retrieval_prompts))
    found: dict[str, None] = {"a": None}  # from which the engine derives the special tokens
    for one in planned:
        if one.cell.model != model:
            continue
        if one.recipe is not None:
            for data in _trained_on(one.recipe, root):
                found.update(dict.fromkeys(data.every_text()))
        for test in one.cell.tests:
            embedded = isinstance(find_task(test.task).rules, EmbeddingRules)
            for _, _, data in sets_tested(test, barred(test, one.cell.phases), root):
                for before in prompts if embedded else ("",):
                    found.update(dict.fromkeys(before + text for text in data.every_text()))
    return found


def _trained_on(recipe: Recipe, root: Path) -> Iterator[Examples]:
    """All examples that training reads, dev examples included."""
    reader = Reader(root, recipe.seed)
    for phase in recipe.phases:
        material = reader.material(settled(phase))
        for part in (*material.sources, *material.dev):
            yield from part.languages.values()
