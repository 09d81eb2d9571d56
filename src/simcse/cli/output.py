"""Tables on stdout, in the format of --format."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from simcse.report.tables import Table

PIPED_WIDTH = 200
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(("table", "json", "markdown", "latex")),
    default="table",
    show_default=True,
    help="Format of the printed results.",
)


def show_all(tables: Sequence["Table"], form: str) -> None:
    """Print tables on stdout; several as JSON are one object by title."""
    from simcse.report.tables import to_rows

    if form == "json" and len(tables) > 1:
        whole = {table.title: to_rows(table) for table in tables}
        click.echo(json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=2))
        return
    for table in tables:
        show(table, form)


def show(table: "Table", form: str) -> None:
    """Print a table on stdout."""
    from rich.console import Console

    from simcse.report import tables

    if form == "table":
        # Piped output is read by programs or pasted: never wrap it at a default width.
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        Console(width=width).print(tables.to_rich(table))
        return
    writers = {"json": tables.to_json, "markdown": tables.to_markdown, "latex": tables.to_latex}
    click.echo(writers[form](table))
