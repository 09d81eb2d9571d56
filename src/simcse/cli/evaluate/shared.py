"""What every ``simcse evaluate`` command does: take models, measure, print, write."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import (
    Command,
    dimensions_option,
    load_encoder,
    loading_options,
    precision_option,
    print_note,
)
from simcse.cli.output import format_option, show, show_all

if TYPE_CHECKING:
    from simcse.evaluate import Encode
    from simcse.evaluate.measure import ModelEvaluation, Plan, Report
    from simcse.report.evaluation import Evaluation

STS_TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")
TRANSFER_TASKS = ("mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc")


def can_be_written(
    _context: click.Context, _option: click.Parameter, output: Path | None
) -> Path | None:
    """Refuse a folder that cannot be written before hours of work, not after them."""
    from simcse.errors import ResourceError

    for folder in () if output is None else (output.absolute(), *output.absolute().parents):
        if folder.exists():
            if not folder.is_dir():
                raise click.BadParameter(f"{folder} is a file")
            if not os.access(folder, os.W_OK):
                raise ResourceError(f"cannot write {output}: {folder} is read-only")
            break
    return output


data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the known data sets."
)
report_option = click.option(
    "--output",
    type=click.Path(path_type=Path),
    callback=can_be_written,
    help="Folder for results and report.",
)


def measuring_options(command: Command) -> Command:
    """Add what every measuring command takes."""
    for option in (
        format_option,
        loading_options,
        dimensions_option,
        precision_option("fp32"),
        click.option(
            "--cache/--no-cache",
            default=True,
            show_default=True,
            help="Keep embeddings by model fingerprint under ~/.cache/simcse/embeddings.",
        ),
        report_option,
        data_option,
        click.option(
            "--encoder",
            "functions",
            multiple=True,
            metavar="MODULE:FUNCTION",
            help="Also measure a Python callable that maps a list of sentences to an array.",
        ),
        click.argument("models", nargs=-1, metavar="[MODEL]..."),
    ):
        command = option(command)
    return command


def split_tasks(names: str, known: tuple[str, ...]) -> list[str]:
    """Split a comma-separated list, refusing what is not known."""
    found = [name.strip() for name in names.split(",")]
    unknown = [name for name in found if name not in known]
    if unknown:
        raise click.UsageError(f"unknown task {unknown[0]!r}; known: {', '.join(known)}")
    return list(dict.fromkeys(found))


def read_pairs(path: Path, columns: str | None, limit: int | None = None) -> list[tuple[str, str]]:
    """Read the first ``limit`` pairs of the user's own file.

    Raises:
        DataError: the file cannot be read, or a row has one sentence only.
    """
    from simcse.io import records

    return records.read_pairs(path, columns=columns or "", limit=limit, note=print_note)


def measure(
    plan: "Plan",
    models: tuple[str, ...],
    functions: tuple[str, ...],
    *,
    cache: bool,
    dimensions: int | None = None,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> list["ModelEvaluation"]:
    """Measure every model and callable by one plan; without any it is the bundled model.

    ``dimensions`` cuts the embeddings of the models; those of callables stay as they are.
    """
    names = models or (() if functions else ("mini",))
    callables = {name: _import(name) for name in functions}  # a misspelled one fails at once
    evaluations = [_measure_model(name, plan, cache, dimensions, loading) for name in names]
    return evaluations + [_measure_function(name, callables[name], plan) for name in functions]


def present(
    evaluation: "Evaluation", *, form: str, output: Path | None, json_tables: int | None = None
) -> None:
    """Print the tables and write the folder; of JSON only the first ``json_tables``."""
    for note in evaluation.warnings:
        click.echo(f"note: {note}", err=True)
    tables = [*evaluation.tables(), *evaluation.comparisons]
    if form == "json":
        show_all(tables[:json_tables])
    else:
        for table in tables:
            show(table, form)
    if output is not None:
        write_evaluation(evaluation, output)
        click.echo(f"results and report: {output}", err=True)


def write_evaluation(evaluation: "Evaluation", output: Path) -> None:
    """Write report.html, results.json, results.md and results.tex."""
    from simcse.io.files import write_text
    from simcse.io.results import write_results
    from simcse.report.evaluation import evaluation_report, evaluation_results, evaluation_text
    from simcse.report.tables import to_latex, to_markdown

    write_text(output / "report.html", evaluation_report(evaluation))
    write_text(output / "results.md", evaluation_text(evaluation, to_markdown))
    write_text(output / "results.tex", evaluation_text(evaluation, to_latex))
    write_results(output / "results.json", evaluation_results(evaluation))


def _measure_model(
    name: str, plan: "Plan", cache: bool, dimensions: int | None, loading: dict[str, Any]
) -> "ModelEvaluation":
    from simcse.evaluate.measure import measure_model
    from simcse.io.embedding_cache import EmbeddingCache
    from simcse.model.fingerprint import fingerprint_sha256

    encoder = load_encoder(name, **loading)
    encoder.check_size(dimensions)
    bare = encoder.without_postprocess()
    base = fingerprint_sha256(bare)
    # The fingerprint is that of the model, in whatever precision; its embeddings are not.
    with _progress(name) as report:
        found = measure_model(
            name,
            partial(bare.encode, truncation="truncate"),  # what was cut is told below, once
            plan,
            refine=lambda vectors: encoder.cut(encoder.refine(vectors), dimensions),
            cache=EmbeddingCache(f"{base}-{bare.backbone.precision}") if cache else None,
            report=report,
        )
    tokenizer = encoder.tokenizer
    if tokenizer.truncated:
        limit = f"{tokenizer.max_length} tokens"
        click.echo(f"{name}: {tokenizer.truncated:,} sentences cut to {limit}", err=True)
    asked = {**loading, "dimensions": dimensions}
    told = {name: value for name, value in asked.items() if value is not None}
    return replace(found, settings={**asdict(encoder.settings), **told}, base=base)


def _measure_function(name: str, function: "Encode", plan: "Plan") -> "ModelEvaluation":
    from simcse.evaluate.measure import measure_model

    with _progress(name) as report:
        return measure_model(name, function, plan, report=report)


def _import(name: str) -> "Encode":
    """Import ``module:function``."""
    from importlib import import_module

    from simcse.errors import UsageError

    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(f"--encoder takes MODULE:FUNCTION, got {name!r}")
    sys.path.insert(0, "")  # modules in the current folder, as `python -m` finds them
    try:
        function: Encode = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot import {name}: {error}") from error
    if not callable(function):
        raise UsageError(f"{name} is a {type(function).__name__}, not a function")
    return function


@contextmanager
def _progress(name: str) -> Iterator["Report"]:
    """Show on stderr what is under way: encoding, then each transfer task's fits."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    text, console = TextColumn("{task.description}"), Console(file=sys.stderr)
    with Progress(text, *columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{name}: {what}", total=total)
            bar.update(tasks[what], completed=done)

        yield report
