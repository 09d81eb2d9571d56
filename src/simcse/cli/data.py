"""``simcse data``: the public data sets, and what of them is here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from simcse.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from simcse.io.benchmarks import FileStatus

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def data() -> None:
    """Find, check and download data sets."""


@data.command()
@click.option(
    "--data",
    "folder",
    type=FOLDER,
    help="Folder to check; else SIMCSE_DATA, ../shared/data or the user's cache.",
)
def check(folder: Path | None) -> None:
    """Compare the data sets here with the known rows and SHA-256.

    Missing files are listed; a file that is there and differs makes the exit code 3.

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


@data.command()
@click.option(
    "--data",
    "folder",
    type=FOLDER,
    envvar="SIMCSE_DATA",
    help="Folder to write; else SIMCSE_DATA or the user's cache.",
)
def fetch(folder: Path | None) -> None:
    """Download STS, transfer and training data (about 260 MB) from the Hugging Face hub.

    The data sets' own terms apply: SICK is non-commercial, MRPC, MSRpar and MSRvid are under
    Microsoft Research terms. Files here that differ from the known ones are replaced.

    Example: simcse data fetch --data ~/simcse-data
    """
    from simcse.io.benchmarks import cache_folder
    from simcse.io.fetch import fetch_datasets

    for fetched in fetch_datasets(folder or cache_folder()):
        click.echo(f"{fetched.path}  {fetched.note}".rstrip())


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
