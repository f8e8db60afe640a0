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
    Devices,
    Precision,
    Prompt,
    Quiet,
    Ray,
    check_root,
    split_names,
)
from xtremely.files.folders import own_folder
from xtremely.kernels.guard import UsageError, require_number

if TYPE_CHECKING:
    from xtremely.eval.run.evaluation import Evaluation
    from xtremely.eval.workers import Workers

COMPARISON = "comparison.html"
MAX_WORKERS = 1024
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
    device: Devices = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that share the tasks and languages: on each device (default: 1), or on"
            " the cluster of --ray (default: one for each GPU, without GPUs for each processor)."
        ),
    ] = None,
    ray: Ray = None,
    precision: Precision = "fp32",
    checked: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Compare the model with transformers on a few texts, for a few seconds, before"
            " anything is computed ('xtremely check' is the long form).",
        ),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List tasks and languages with their tokens and the expected seconds, and evaluate"
            " nothing. Speed is measured on a few texts of each task.",
        ),
    ] = False,
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
    first, shared = _workers(device, workers, ray, dry_run)
    load = partial(
        Engine.load,
        backend=backend,
        device=first,
        precision=precision,
        allow_pickle=allow_pickle,
    )
    asked = split_names(languages, "--languages")
    # A folder's name may have a comma.
    models = [model] if Path(model).is_dir() else split_names(model, "--model") or []
    whole = Evaluation(
        models[0], load, chosen, data_root, settings, checkpoints, asked, named, checked, shared
    )
    runs = {out: whole} if len(models) == 1 else _several(whole, models, out)
    if dry_run:
        for folder, one in runs.items():
            _estimate(one, folder)
    elif len(models) == 1:
        _run(whole, out, quiet)
    else:
        for name in models:  # before the first is evaluated
            locate(name, allow_pickle)
        _run_several(runs, out, quiet)


def _workers(
    devices: str, count: int | None, ray: str | None, dry_run: bool
) -> tuple[str, Workers | None]:
    """The device to plan on, and the workers; None where this process does everything."""
    from xtremely.engine.devices import usable_devices

    if count is not None:
        require_number("--workers", count, 1, MAX_WORKERS)
    found = usable_devices(devices)
    if ray is not None:
        from xtremely.eval.ray_pool import RayWorkers, connect

        if len(found) > 1 or found[0].index is not None:
            raise UsageError(
                f"--ray chooses GPUs itself, --device names {devices}; legal with it: auto, cpu,"
                " cuda"
            )
        if not dry_run:
            connect(ray)
        return str(found[0]), RayWorkers(count, found[0].type)
    from xtremely.eval.workers import LocalWorkers

    names = tuple(str(device) for _ in range(count or 1) for device in found)
    return names[0], LocalWorkers(names) if len(names) > 1 else None


def _estimate(evaluation: Evaluation, out: Path) -> None:
    """Show what evaluating a model into a folder would do."""
    from xtremely.eval.cli.display import print_estimates

    found, notes = evaluation.dry_run(out)
    print_estimates(evaluation.model, found, notes, evaluation.workers)


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


def _several(evaluation: Evaluation, models: list[str], out: Path) -> dict[Path, Evaluation]:
    """The evaluations of several models, by the folder of each."""
    from xtremely.engine.hub.locate import display_name

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
    return {
        out / name: replace(evaluation, model=model)
        for name, model in zip(names, models, strict=True)
    }


def _run_several(runs: dict[Path, Evaluation], out: Path, quiet: bool) -> None:
    """Evaluate models into a folder each, and compare them with the first."""
    from xtremely.eval.cli.display import print_comparison
    from xtremely.eval.compare.comparison import compare
    from xtremely.eval.compare.page import write_page
    from xtremely.eval.compare.runs import read_runs

    names = [folder.name for folder in runs]
    own = own_folder(out, SEVERAL)
    own.add(*names, COMPARISON)
    own.check_places(files=[COMPARISON], folders=names)
    for folder, evaluation in runs.items():
        _run(evaluation, folder, quiet)
    found = compare(read_runs([*runs]))
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
