"""``xtremely eval``: one model, or several into one comparison."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xtremely.eval.cli.options import (
    MODEL,
    AllowPickle,
    Backend,
    DataRoot,
    Device,
    Precision,
    Prompt,
    Quiet,
    check_root,
    split_names,
)
from xtremely.files.folders import own_folder
from xtremely.kernels.guard import UsageError

if TYPE_CHECKING:
    from xtremely.eval.run.evaluation import Evaluation

COMPARISON = "comparison.html"
SEVERAL = "eval --model A,B"  # the owner of a folder with a folder for each model


def evaluate(
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results.json, report.html and submission/; with several models, for a"
            " folder of each and comparison.html. An interrupted run continues when it is started"
            " again with the same folder."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help=f"The model to run: {MODEL}; several, separated by commas, are compared."
        ),
    ] = "e5-small-4bit",
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="Folder with one fine-tuned model for each kind of task, in folders called xnli,"
            " pawsx, udpos, panx, squad, tydiqa and xcopa (default: --model is fine-tuned itself)."
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks to evaluate, names from 'xtremely tasks' separated by commas, or all"
            " (default: all with --data-root, else mini)."
        ),
    ] = None,
    data_root: DataRoot = None,
    languages: Annotated[
        str | None,
        typer.Option(
            help="Languages to evaluate, ISO 639-1 codes separated by commas, e.g. de,zh (default:"
            " all that have data)."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Hidden layers to evaluate embeddings from: all, last, or numbers separated by"
            " commas, e.g. 4,8,last (default: the profile's)."
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="How token vectors become one sentence vector: mean (their average), cls (the"
            " first token's), model (the model's own, at the last layer with all its modules), or"
            " several: mean,cls (default: the profile's)."
        ),
    ] = None,
    centring: Annotated[
        str,
        typer.Option(
            help="What to subtract from embeddings: none (nothing), mean (the average embedding of"
            " the language), or both variants: none,mean."
        ),
    ] = "none",
    profile: Annotated[
        str,
        typer.Option(
            help="Source of layer, pooling and prompt: model (the model's own), script (XTREME's"
            " published code) or paper (XTREME's paper)."
        ),
    ] = "model",
    prompt: Prompt = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Number of examples per language to evaluate, at least 2: for a quick look, not"
            " for a benchmark score (default: all)."
        ),
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    checked: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Compare the model with transformers on a few texts, for a few seconds, before"
            " anything is computed ('xtremely check' is the long form).",
        ),
    ] = True,
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a model on XTREME's tasks and write a report."""
    from xtremely.engine.hub.locate import locate
    from xtremely.engine.runtime import Engine
    from xtremely.eval.run import planning
    from xtremely.eval.run.evaluation import Evaluation

    chosen, named = _tasks(tasks, data_root)
    check_root(data_root)
    if checkpoints is not None and not checkpoints.is_dir():
        raise UsageError(f"--checkpoints {checkpoints}: there is no such folder")
    settings = planning.EvaluationSettings(
        profile=profile,
        layers=layers,
        poolings=tuple(split_names(pooling, "--pooling") or ()) or None,
        centrings=tuple(split_names(centring, "--centring") or ()),
        prompt=prompt,
        limit=limit,
    )
    load = partial(
        Engine.load,
        backend=backend,
        device=device,
        precision=precision,
        allow_pickle=allow_pickle,
    )
    asked = split_names(languages, "--languages")
    # A folder's name may have a comma.
    models = [model] if Path(model).is_dir() else split_names(model, "--model") or []
    whole = Evaluation(
        models[0], load, chosen, data_root, settings, checkpoints, asked, named, checked
    )
    if len(models) == 1:
        _run(whole, out, quiet)
        return
    for one in models:  # before the first is evaluated
        locate(one, allow_pickle)
    _run_several(whole, models, out, quiet)


def _run(evaluation: Evaluation, out: Path, quiet: bool) -> None:
    """Evaluate a model into a folder."""
    from xtremely.eval.cli.display import ProgressWatcher, print_summary
    from xtremely.eval.report.html import write_report
    from xtremely.eval.run.folder import (
        check_submission,
        run_folder,
        write_outcomes,
        write_submission,
    )
    from xtremely.eval.run.results import write_results
    from xtremely.eval.run.runner import records_of

    evaluation.check()
    with run_folder(out) as folder:
        with ProgressWatcher(quiet) as watcher:
            results, notes = evaluation.run(out, watcher, partial(check_submission, folder))
        records = records_of(results)
        write_submission(folder, results)
        write_outcomes(folder, results)
        write_results(out / "results.json", records)
        write_report(out / "report.html", records, notes)
    if not quiet:
        print_summary(records, notes, out)


def _run_several(evaluation: Evaluation, models: list[str], out: Path, quiet: bool) -> None:
    """Evaluate models into a folder each, and compare them with the first."""
    from xtremely.engine.hub.locate import display_name
    from xtremely.eval.cli.display import print_comparison
    from xtremely.eval.compare.comparison import compare
    from xtremely.eval.compare.page import write_page
    from xtremely.eval.compare.runs import read_runs

    if evaluation.checkpoints is not None:
        raise UsageError(
            "--checkpoints holds fine-tuned forms of one model; evaluate each model by itself, then"
            " 'xtremely compare' the folders"
        )
    names = [display_name(model).replace("/", "_") for model in models]
    if len({*names}) < len(names) or COMPARISON in names:
        raise UsageError(
            f"--model: the models' folders would be called {', '.join(names)}; evaluate models of"
            " one name by themselves, then 'xtremely compare' the folders"
        )
    folder = own_folder(out, SEVERAL)
    folder.add(*names, COMPARISON)
    folder.check_places(files=[COMPARISON], folders=names)
    for model, name in zip(models, names, strict=True):
        _run(replace(evaluation, model=model), out / name, quiet)
    found = compare(read_runs([out / name for name in names]))
    write_page(out / COMPARISON, found)
    if not quiet:
        print_comparison(found)


def _tasks(names: str | None, data_root: Path | None) -> tuple[list, bool]:
    """The tasks, and whether the user named them one by one."""
    from xtremely.eval.tasks.task import all_tasks, find_task

    wanted = split_names(names, "--tasks") or (["all"] if data_root else ["mini"])
    named = wanted != ["all"]
    if not named:
        wanted = [task.name for task in all_tasks().values() if not task.packaged]
    chosen = [find_task(name) for name in wanted]
    homeless = [task.name for task in chosen if not task.packaged]
    if homeless and data_root is None:
        raise UsageError(
            f"{', '.join(homeless)}: needs --data-root; without data, use --tasks mini"
        )
    return chosen, named
