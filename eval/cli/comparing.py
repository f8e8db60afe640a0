"""``xtremely compare``: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xtremely.eval.cli.options import BenchmarkName
from xtremely.files.folders import check_outputs
from xtremely.files.writing import check_file
from xtremely.kernels.guard import UsageError


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Result folders of 'xtremely eval'.")],
    against: Annotated[
        str | None,
        typer.Option(
            help="The run that others are compared with: its name in the table, or its folder"
            " (default: the first)."
        ),
    ] = None,
    benchmark: BenchmarkName = "xtreme",
    save: Annotated[
        list[Path] | None,
        typer.Option(
            help="File for the comparison; may be given several times. The suffix decides the"
            " format: .html (a page with all languages), .md and .tex (tables as papers print"
            " them), .csv and .parquet (a row for every run, task and language)."
        ),
    ] = None,
    mteb: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the runs' scores as MTEB's result files: Tatoeba, the task that both"
            " have."
        ),
    ] = None,
) -> None:
    """Compare runs: scores side by side, and which differences are not by chance."""
    from xtremely.eval.cli.display import print_comparison
    from xtremely.eval.compare.comparison import compare as compared
    from xtremely.eval.compare.formats import FORMATS
    from xtremely.eval.compare.mteb import write_mteb
    from xtremely.eval.compare.runs import read_runs
    from xtremely.eval.scoring.benchmarks import find_benchmark

    files = save or []
    check_files(files, runs)
    found = compared(read_runs(runs), against, find_benchmark(benchmark))
    for path in files:
        FORMATS[path.suffix](path, found)
    if mteb is not None:
        write_mteb(mteb, found.runs)
    print_comparison(found)


def check_files(files: Sequence[Path], runs: Sequence[Path]) -> None:
    """Check before any work that a comparison can be written.

    Raises:
        UsageError: a suffix is not known.
        InputError: a file cannot be written, or is a run's own.
    """
    from xtremely.eval.compare.formats import FORMATS

    for path in files:
        if path.suffix not in FORMATS:
            raise UsageError(
                f"--save {path}: the suffix decides the format; legal: {', '.join(FORMATS)}"
            )
    inputs = {str(one): one for run in runs for one in (run / "results.json", run / "report.html")}
    check_outputs({f"--save {path}": path for path in files}, inputs)
    for path in files:
        check_file(path, "--save", make_folder=True)
