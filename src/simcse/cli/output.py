"""Tables on stdout, in the format asked for."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from simcse.report.tables import Table

PIPED_WIDTH = 200
FORMATS = ("table", "json", "markdown", "latex")
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How results are printed.",
)


def show_all(tables: Sequence["Table"]) -> None:
    """Print tables as JSON on stdout: the rows of one, or an object of several by title."""
    from simcse.report.tables import to_json, to_rows

    if len(tables) == 1:
        click.echo(to_json(tables[0]))
        return
    whole = {table.title: to_rows(table) for table in tables}
    click.echo(json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=2))


def show(table: "Table", form: str) -> None:
    """Print a table on stdout."""
    from rich.console import Console

    from simcse.report import tables

    if form == "table":
        # Piped output is read by programs or pasted: never wrap it at some default width.
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        Console(width=width).print(tables.to_rich(table))
        return
    writers = {
        "json": tables.to_json,
        "markdown": tables.to_markdown,
        "latex": tables.to_latex,
    }
    click.echo(writers[form](table))
