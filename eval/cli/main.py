"""The command line: ``xtremely eval``, ``train``, ``score``, ``compare``, ``check``, ``encode``,
``export``, ``mine``, ``index``, ``tasks``, ``data``, ``models``, ``kernels``, ``study``.

Exit codes: 0 success, 1 wrong input, 2 wrong usage, 130 and 143 interrupted (Ctrl-C, SIGTERM).
Tables go to standard output, progress and notes to standard error.
"""

from __future__ import annotations

import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xtremely.eval.cli import checking, comparing, data, evaluating, retrieval, study, training
from xtremely.eval.cli.endings import Stopped, ending, lenient_streams, stoppable
from xtremely.eval.cli.options import (
    MODEL,
    AllowPickle,
    BenchmarkName,
    DataRoot,
    Layer,
    Pooling,
    check_arguments,
    check_root,
    split_names,
)
from xtremely.eval.plain import say, warn_in_notes
from xtremely.kernels.guard import InputError


class _Commands(TyperGroup):
    """Handles two exceptions itself, as typer would not mention what is kept."""

    def invoke(self, context: Any) -> object:
        """Run a command."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            raise Stopped(signal.SIGINT) from error
        except EOFError as error:
            raise InputError(f"a file ends too early ({error}); is it whole?") from error


app = typer.Typer(
    name="xtremely",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xtremely {metadata.version('xtremely')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Evaluate, train and search with multilingual encoders on XTREME, without padding."""


app.command("eval")(evaluating.evaluate)


@app.command()
def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="Folder with predictions in XTREME's layout: TASK/test-LANGUAGE.tsv, for question"
            " answering and ranked candidates .json, for xcopa .jsonl."
        ),
    ],
    labels: Annotated[
        Path, typer.Argument(help="Folder with the true labels in files of the same names.")
    ],
    benchmark: BenchmarkName = "xtreme",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print every metric of every language as JSON, not tables."),
    ] = False,
) -> None:
    """Score a folder of predictions as XTREME's own script does, without a model."""
    from xtremely.eval.cli.display import print_scores
    from xtremely.eval.run.results import dumps
    from xtremely.eval.run.score import score_folder
    from xtremely.eval.scoring.benchmarks import find_benchmark

    scores = score_folder(predictions, labels, find_benchmark(benchmark))
    if as_json:
        typer.echo(dumps(scores), nl=False)
    else:
        print_scores(scores)


app.command("compare")(comparing.compare)
app.command("check")(checking.check)
app.command("encode")(retrieval.encode)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help=f"The model to export: {MODEL}.")],
    out: Annotated[Path, typer.Option(help="New folder for model.onnx and the tokenizer's files.")],
    precision: Annotated[
        str,
        typer.Option(
            help="Number format of the exported model: fp32, fp16 (for GPUs) or int8 (weights and"
            " activations)."
        ),
    ] = "fp32",
    head: Annotated[
        str | None,
        typer.Option(
            help="Head to export: classification, tagging, answering or choice (default: none, the"
            " exported model gives sentence embeddings)."
        ),
    ] = None,
    layer: Layer = None,
    pooling: Pooling = None,
    packed: Annotated[
        bool,
        typer.Option(
            "--packed",
            help="Export a model that takes sequences one after the other, without padding, and"
            " their boundaries (input_ids, position_ids, cu_seqlens); fp32 and int8 only.",
        ),
    ] = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Export a model to ONNX and compare it with torch before it is kept."""
    from xtremely.eval.cli.exporting import export_model
    from xtremely.eval.cli.terminal import note

    note(export_model(model, out, precision, head, layer, pooling, packed, allow_pickle))


@app.command("tasks")
def list_tasks(data_root: DataRoot = None) -> None:
    """List the tasks, with their licences and files, and which languages have data."""
    from xtremely.eval.cli.listings import print_tasks
    from xtremely.eval.tasks.task import all_tasks

    check_root(data_root)
    print_tasks(list(all_tasks().values()), data_root)


app.add_typer(data.app, name="data")


@app.command("models")
def list_models() -> None:
    """List the packaged models and the model types that can be loaded."""
    from xtremely.eval.cli.listings import print_models

    print_models()


app.command("train")(training.train)
app.add_typer(study.app, name="study")

kernels = typer.Typer(help="List what the Triton kernels compile to, or tune them on a GPU.")
app.add_typer(kernels, name="kernels")


@kernels.callback(invoke_without_command=True)
def list_kernels(
    context: typer.Context,
    target: Annotated[
        str, typer.Option(help="GPU architecture to list: sm_80, sm_90 or gfx942.")
    ] = "sm_90",
) -> None:
    """List what the Triton kernels compile to: registers, spills, matrix instructions."""
    from xtremely.eval.cli.kernel_tables import print_kernels

    if context.invoked_subcommand is None:
        print_kernels(target)


@kernels.command("tune")
def tune_kernels(
    only: Annotated[
        str | None,
        typer.Option(help="Kernels to tune, names separated by commas (default: all kernels)."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="Number formats to tune for, separated by commas: fp32, fp16 and bf16."),
    ] = "fp16,bf16",
    out: Annotated[
        Path | None,
        typer.Option(help="JSON file for the fastest settings (default: the package's own table)."),
    ] = None,
) -> None:
    """Measure the kernels' settings on this GPU and keep the fastest."""
    from xtremely.eval.cli.kernel_tables import print_tuning

    print_tuning(split_names(only, "--only"), split_names(precision, "--precision") or [], out)


app.command("mine")(retrieval.mine)
app.add_typer(retrieval.index, name="index")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a foreseeable error ends in one line and an exit code."""
    warn_in_notes()
    given = sys.argv[1:] if arguments is None else arguments
    command = " ".join(given[:2])
    with stoppable() as seen:
        try:
            with lenient_streams():
                check_arguments(given)
                app(given)
        except BaseException as error:
            found = ending(error, command, seen)
            if found is None:
                raise
            say("error:", "red", found[0])
            sys.exit(found[1])
