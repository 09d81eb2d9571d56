"""``simcse data``: the public data sets, and checks and subsets of training files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from simcse.cli.options import columns_option, print_note
from simcse.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from simcse.io.benchmarks import FileStatus

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)
OUTPUT_FILE = click.Path(path_type=Path, dir_okay=False)

file_argument = click.argument("file", type=FILE)
seed_option = click.option("--seed", default=0, help="Random seed for the draw.")
data_option = click.option(
    "--data",
    "folder",
    type=FOLDER,
    help="Folder with the evaluation sets; by default as `simcse data check` finds it.",
)
same_format_option = click.option(
    "--output", required=True, type=OUTPUT_FILE, help="File to write, in the format of FILE."
)


@click.group()
def data() -> None:
    """Download data sets; check, split and make training data.

    \b
    Examples:
      simcse data lint sentences.txt
      simcse data dedupe sentences.txt --near --output clean.txt
    """


@data.command("check")
@click.option(
    "--data",
    "folder",
    type=FOLDER,
    help="Folder to check; by default SIMCSE_DATA, ../shared/data or the user's cache.",
)
def check_command(folder: Path | None) -> None:
    """Compare the data sets on this machine with the known rows and SHA-256.

    Missing files are listed. A file that differs makes the exit code 3.

    Example: simcse data check --data ~/simcse-data
    """
    from rich.console import Console

    from simcse.io.benchmarks import check_datasets, data_folder

    folder = data_folder(folder)
    statuses = check_datasets(folder)
    Console().print(_table(folder, statuses))
    wrong = [status for status in statuses if status.is_wrong]
    if wrong:
        names = ", ".join(status.known.path for status in wrong)
        raise DataError(f"{folder}: {len(wrong)} of {len(statuses)} files differ: {names}")


@data.command("fetch")
@click.option(
    "--data",
    "folder",
    type=FOLDER,
    envvar="SIMCSE_DATA",
    help="Folder to write; by default SIMCSE_DATA or the user's cache.",
)
def fetch_command(folder: Path | None) -> None:
    """Download STS, transfer and training data (about 260 MB) from the Hugging Face hub.

    The data sets' own terms apply: SICK is non-commercial, MRPC, MSRpar and MSRvid are under
    Microsoft Research terms. Files that differ from the known ones are replaced.

    Example: simcse data fetch --data ~/simcse-data
    """
    from simcse.io.benchmarks import cache_folder
    from simcse.io.fetch import fetch_datasets

    for fetched in fetch_datasets(folder or cache_folder()):
        click.echo(f"{fetched.path}  {fetched.note}".rstrip())


@data.command("lint")
@file_argument
@columns_option
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def lint_command(file: Path, columns: str, folder: Path | None, as_json: bool) -> None:
    """Check a training file: list problems, the lines they are in, and a fix for each.

    Finds duplicates and near duplicates, empty, very short and very long rows, damaged encoding,
    markup, other scripts, sentences of the evaluation sets, triplets whose negatives equal the
    positives, and negatives that differ from the positives in length. A million lines take less
    than a minute.

    \b
    Examples:
      simcse data lint sentences.txt
      simcse data lint support.csv --columns question,answer
    """
    import json
    from dataclasses import asdict

    from simcse.data.lint import lint, lint_text
    from simcse.data.subsets import evaluation_sentences

    sentences = list(evaluation_sentences(folder))
    if not sentences:
        print_note("note: no evaluation sets were found, so leaks are not checked")
    report = lint(file, columns=columns, evaluation=sentences, note=print_note)
    as_text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
    click.echo(as_text if as_json else lint_text(report))


@data.command("dedupe")
@file_argument
@same_format_option
@click.option("--near", is_flag=True, help="Drop rows that share 80 % of their words, too.")
@click.option("--leaks", is_flag=True, help="Drop rows with a sentence of an evaluation set, too.")
@columns_option
@data_option
def dedupe_command(
    file: Path, output: Path, near: bool, leaks: bool, columns: str, folder: Path | None
) -> None:
    """Drop rows that repeat the words of an earlier row, regardless of case and punctuation.

    \b
    Example:
      simcse data dedupe sentences.txt --near --leaks --output clean.txt.gz
    """
    from simcse.data.subsets import RowSource, dedupe, evaluation_sentences

    sentences = list(evaluation_sentences(folder)) if leaks else []
    if leaks and not sentences:
        raise click.UsageError("--leaks needs the evaluation sets; `simcse data fetch` gets them")
    training = RowSource(file, columns, print_note)
    result = dedupe(training.rows, near=near, leaks=sentences)
    training.write(result.lines, output)
    dropped = ", ".join(f"{count:,} {name}" for name, count in result.dropped.items())
    click.echo(f"{output}: {len(result.lines):,} rows; dropped: {dropped}", err=True)


@data.command("split")
@file_argument
@click.option("--output", required=True, type=FILE, help="Folder for train, dev and test.")
@click.option(
    "--dev",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Fraction of rows in the dev split.",
)
@click.option(
    "--test",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Fraction of rows in the test split.",
)
@columns_option
@seed_option
def split_command(
    file: Path, output: Path, dev: float, test: float, columns: str, seed: int
) -> None:
    """Split a file into train, dev and test; rows with the same anchor stay together.

    \b
    Example:
      simcse data split pairs.tsv --output splits --dev 0.1 --test 0.1
    """
    from simcse.data.subsets import RowSource, split

    training = RowSource(file, columns, print_note)
    fractions = {"train": 1 - dev - test, "dev": dev, "test": test}
    ending = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
    for name, lines in split(training.rows(), fractions, seed=seed).items():
        training.write(lines, output / f"{name}{ending}")
        click.echo(f"{output / name}{ending}: {len(lines):,} rows", err=True)


@data.command("sample")
@file_argument
@click.option("--rows", required=True, type=click.IntRange(1), help="Number of rows to sample.")
@same_format_option
@columns_option
@seed_option
def sample_command(file: Path, rows: int, output: Path, columns: str, seed: int) -> None:
    """Sample rows at random, in the order of the file.

    \b
    Example:
      simcse data sample wiki.txt.gz --rows 10000 --output small.txt
    """
    from simcse.data.subsets import RowSource, sample

    training = RowSource(file, columns, print_note)
    lines = sample(training.rows(), rows, seed=seed)
    training.write(lines, output)
    click.echo(f"{output}: {len(lines):,} rows", err=True)


def _table(folder: Path, statuses: list[FileStatus]) -> Table:
    from rich.table import Table

    table = Table(title=f"Data sets in {folder}", title_justify="left")
    table.add_column("file", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("state", no_wrap=True)
    table.add_column("problem")
    for status in statuses:
        table.add_row(status.known.path, f"{status.known.rows:,}", status.state, status.problem)
    return table
