"""``simcse evaluate``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import load_encoder, loading_options, precision_option
from simcse.cli.output import format_option, show

if TYPE_CHECKING:
    from simcse.evaluate import Encode
    from simcse.io.sts import StsTask
    from simcse.report.runs import ModelEvaluation

TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")


@click.group()
def evaluate() -> None:
    """Measure models on known tasks."""


@evaluate.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--tasks", default=",".join(TASKS), show_default=True, help="Comma-separated.")
@click.option(
    "--split",
    type=click.Choice(["test", "dev"]),
    default="test",
    show_default=True,
    help="Of STS-B and SICK-R; the other sets have no dev part.",
)
@click.option(
    "--sickr",
    type=click.Choice(["test", "all"]),
    default="test",
    show_default=True,
    help="The 4,927 test pairs as the paper, or all 9,927 as MTEB.",
)
@click.option(
    "--text",
    type=click.Choice(["natural", "senteval"]),
    default="natural",
    show_default=True,
    help="Natural text, or as SentEval tokenises it (what the paper fed the encoder).",
)
@click.option(
    "--aggregation",
    type=click.Choice(["all", "mean", "wmean"]),
    default="all",
    show_default=True,
    help="One correlation a task (the paper, MTEB), or the mean over its subsets.",
)
@click.option("--details", is_flag=True, help="Print every task by subset, Spearman and Pearson.")
@click.option(
    "--encoder",
    "functions",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="Also measure a Python callable that maps a list of sentences to an array.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder that holds sts/.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for results and report.")
@precision_option("fp32")
@loading_options
@format_option
def sts(
    models: tuple[str, ...],
    functions: tuple[str, ...],
    tasks: str,
    split: str,
    sickr: str,
    text: str,
    data: Path | None,
    **options: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Spearman correlation on the 7 STS tasks, as the paper computes it.

    Several models are put side by side. Alignment and uniformity follow the paper's protocol:
    STS-B pairs rated above 4, and all STS-B sentences, of the split that is evaluated.

    \b
    Examples:
      simcse evaluate sts
      simcse evaluate sts runs/nli/best mini --format markdown
      simcse evaluate sts bert-base-uncased --pooling mean_first_last --aggregation wmean
      simcse evaluate sts mini --split dev --tasks stsb
    """
    loaded = _load_tasks(tasks.split(","), split=split, sickr=sickr, text=text, folder=data)
    for task in loaded.values():
        for note in task.notes:
            click.echo(f"note: {note}", err=True)
    loading = {name: options.pop(name) for name in ("pooling", "max_length", "device", "precision")}
    evaluations = [_measure_model(name, loaded, loading) for name in models or _default(functions)]
    evaluations += [_measure(name, _function(name), loaded) for name in functions]
    _present(evaluations, loaded, **options)


def _default(functions: tuple[str, ...]) -> tuple[str, ...]:
    """Without any model named it is the bundled one."""
    return () if functions else ("mini",)


def _load_tasks(
    names: list[str], *, split: str, sickr: str, text: str, folder: Path | None
) -> dict[str, "StsTask"]:
    from simcse.io.datasets import load_sts_task

    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise click.UsageError(f"unknown task {unknown[0]!r}; known: {', '.join(TASKS)}")
    parts = {"stsb": f"stsb-{split}", "sickr": f"sickr-{'all' if sickr == 'all' else split}"}
    return {
        name: load_sts_task(parts.get(name, name), text=text, folder=folder)  # type: ignore[arg-type]
        for name in names
    }


def _measure_model(
    name: str, tasks: dict[str, "StsTask"], loading: dict[str, Any]
) -> "ModelEvaluation":
    from dataclasses import asdict, replace

    encoder = load_encoder(name, **loading)
    measured = _measure(name, encoder.encode, tasks)
    tokenizer = encoder.tokenizer
    if tokenizer.truncated:
        limit = f"{tokenizer.max_length} tokens"
        click.echo(f"{name}: {tokenizer.truncated:,} sentences cut to {limit}", err=True)
    return replace(measured, settings={**asdict(encoder.settings), **loading})


def _measure(name: str, encode: "Encode", tasks: dict[str, "StsTask"]) -> "ModelEvaluation":
    """Evaluate one encoder on all tasks, with a bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    from simcse.evaluate.geometry import measure_geometry
    from simcse.evaluate.sts import embed_task, score_sts
    from simcse.report.runs import ModelEvaluation

    console = Console(file=sys.stderr)
    results, geometry = {}, None
    for task, loaded in track(tasks.items(), description=name, console=console, transient=True):
        embedded = embed_task(encode, loaded)
        results[task] = score_sts(embedded)
        geometry = measure_geometry(embedded) if task == "stsb" else geometry
    return ModelEvaluation(name, results, geometry)


def _function(name: str) -> "Encode":
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
    return function


def _present(
    evaluations: list["ModelEvaluation"],
    tasks: dict[str, "StsTask"],
    *,
    aggregation: str,
    details: bool,
    output: Path | None,
    form: str,
) -> None:
    from simcse.report.runs import geometry_table, sts_table, subset_table

    show(sts_table(evaluations, aggregation=aggregation), form)  # type: ignore[arg-type]
    if "stsb" in tasks and form != "json":
        show(geometry_table(evaluations), form)
    for task in tasks if details else ():
        show(subset_table(evaluations, task), form)
    if output is not None:
        _write(evaluations, tasks, output, aggregation)


def _write(
    evaluations: list["ModelEvaluation"],
    tasks: dict[str, "StsTask"],
    output: Path,
    aggregation: str,
) -> None:
    from dataclasses import asdict

    from simcse.io.files import write_text
    from simcse.io.results import write_results
    from simcse.report.runs import evaluation_report
    from simcse.report.versions import versions

    data = {Path(task.path).name: task.sha256 for task in tasks.values()}
    notes = [note for task in tasks.values() for note in task.notes]
    page = evaluation_report(
        evaluations,
        aggregation=aggregation,  # type: ignore[arg-type]
        data=data,
        versions=versions(),
        notes=notes,
    )
    write_text(output / "report.html", page)
    models = [asdict(evaluation) for evaluation in evaluations]
    results = {"aggregation": aggregation, "data": data, "versions": versions(), "models": models}
    write_results(output / "results.json", results)
    click.echo(f"results and report: {output}", err=True)
