"""Tables of the Triton kernels: what they compile to, and what tuning measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from xtremely.eval.cli.terminal import figures, line, show, table
from xtremely.files.documents import read_json
from xtremely.files.writing import check_file
from xtremely.kernels import tuning
from xtremely.kernels.configurations import TABLE, read_table
from xtremely.kernels.guard import require, unknown
from xtremely.kernels.inspection import TARGETS, read_record
from xtremely.kernels.spec import TYPES, all_kernels


def print_kernels(target: str) -> None:
    """The record of compiled kernels for one target."""
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    record = read_record()
    rows = {name: row[target] for name, row in record["table"].items() if target in row}
    columns = list(next(iter(rows.values())))
    title = f"compiled for {target} by Triton {record['triton']}, not run"
    made = table(title)
    made.add_column("kernel: class", no_wrap=True)
    figures(made, *(name.replace("_", " ") for name in columns))
    made.add_column("settings", no_wrap=True)
    tuned = read_table()
    classes = {
        f"{name}: {launch.name}": launch.shape or launch.name
        for name, kernel in all_kernels().items()
        for launch in kernel.launches(target)
    }
    for name, row in rows.items():
        kernel = name.split(": ", 1)[0]
        measured = tuned.get(kernel, {}).get(target, {}).get(classes.get(name, ""))
        origin = f"tuned {measured['date']} on {measured['device']}" if measured else "untuned"
        made.add_row(name, *(str(row[column]) for column in columns), origin)
    show(made)


def print_tuning(names: list[str] | None, precisions: list[str], out: Path | None) -> None:
    """Tune the kernels on this machine's GPU, print one line per shape class, keep the table."""
    known = all_kernels()
    legal_precisions = {name: precision for precision, name in TYPES.items()}
    for what, given, legal in (
        ("kernel", names or (), known),
        ("precision", precisions, legal_precisions),
    ):
        for name in given:
            if name not in legal:
                raise unknown(what, name, legal)
    if out is not None:
        check_file(out, "--out", make_folder=True)
        if out.exists():
            read_json(out, dict[str, dict[str, dict[str, dict[str, Any]]]])  # refuses others
    require(
        torch.cuda.is_available(),
        "tuning measures on a GPU and this machine has none; untuned kernels run with defaults",
    )
    device = torch.device("cuda")
    chosen = [known[name] for name in names or known]
    wanted = tuple(legal_precisions[name] for name in precisions)
    for tried in tuning.tune(chosen, wanted, device):
        tuning.keep(tried, device, out or TABLE)
        line(tuning.line(tried))
    line("now update the record of compiled kernels: python -m xtremely.kernels.inspection --write")
