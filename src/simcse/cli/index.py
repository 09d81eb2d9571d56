"""``simcse index``: search over one's own sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.indexing import (
    PLACE,
    check_files,
    fill,
    load_for,
    load_with_stamp,
    open_index,
    show_hits,
)
from simcse.cli.options import loading_options, model_option, precision_option
from simcse.cli.output import format_option
from simcse.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from simcse.index.protocol import VectorIndex
    from simcse.index.uri import Place

KINDS = ("exact", "hnsw", "ivf", "int8", "binary")
FOLDER = click.Path(path_type=Path, file_okay=False)
index_argument = click.argument("place", metavar="INDEX", type=PLACE)
BACKUP = "PostgreSQL has its own backups: pg_dump --schema=INDEX, pg_restore"
kind_option = click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="How it searches: exact (the default), or approximate with its recall measured.",
)
recall_option = click.option(
    "--recall",
    type=click.FloatRange(0, 1),
    help="recall@10 an approximate kind must reach, else its build fails; 0.95 if not given.",
)


def reading_options(command: Any) -> Any:  # noqa: ANN401 - click decorates any function
    """Add the options that say what of the input files is what."""
    for option in (
        click.option(
            "--bad-lines",
            type=click.Choice(["error", "skip"]),
            default="error",
            show_default=True,
            help="Stop at a bad line, or skip and count it.",
        ),
        click.option(
            "--columns",
            default="",
            metavar="COLUMNS",
            help="Columns of text and id, by name or position, such as text=question,id=ticket_id; "
            "a row without an id has the hash of its text as id.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def index() -> None:
    """Build, search and keep an index of your own sentences.

    INDEX is a folder, or with the extra simcse-next[postgres] a database with pgvector:
    postgresql://user@host/database#index, for many writers at once.

    \b
    Start here:
      simcse index build my-index sentences.txt
      simcse index search my-index "someone makes music"
    """


@index.command()
@index_argument
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@model_option
@kind_option
@recall_option
@reading_options
@precision_option("auto")
@loading_options
def build(
    place: Place,
    files: tuple[str, ...],
    model: str,
    kind: str | None,
    recall: float | None,
    **rest: Any,  # noqa: ANN401
) -> None:
    """Make an index of sentences; interrupted, the same command goes on where it was.

    FILE is .txt with one sentence a line, .tsv, .csv, .jsonl (each also gzipped) or .parquet
    (columns text and id, all others are metadata), or - for standard input. Rows of the same id,
    and without ids of the same text, are one row: the last.

    \b
    Examples:
      simcse index build my-index sentences.txt
      simcse index build my-index articles.jsonl --columns title --kind hnsw --recall 0.98
      simcse index build postgresql://localhost/texts#articles articles.jsonl
    """
    from simcse.index.approximate import RECALL
    from simcse.index.uri import create_index, has_index

    reading = {name: rest.pop(name) for name in ("columns", "bad_lines")}
    check_files(files)
    encoder, fingerprint = load_with_stamp(model, **rest)
    if has_index(place):
        opened = open_index(place)
        if not opened.facts["progress"]:
            raise UsageError(
                f"{opened.name} is built already; to add to it: simcse index add INDEX FILE; "
                "for another index name a new one"
            )
        opened.require_model(fingerprint)
        click.echo(f"going on with {opened.name}: {len(opened):,} rows are there", err=True)
    else:
        opened = create_index(
            place,
            fingerprint,
            kind=kind or "exact",  # type: ignore[arg-type]
            recall=RECALL if recall is None else recall,
            progress={"build": 0},
        )
    fill(opened, files, encoder, reading)
    if opened.facts["kind"] != "exact":
        click.echo(f"building {opened.facts['kind']} and measuring its recall ...", err=True)
        opened.rebuild()
    opened.annotate(progress={})
    _say(opened)


@index.command()
@index_argument
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--model", metavar="NAME", help="Default: the model the index was built with.")
@reading_options
@precision_option("auto")
@loading_options
def add(place: Place, files: tuple[str, ...], model: str | None, **rest: Any) -> None:  # noqa: ANN401
    """Add sentences; a row replaces the one of the same id.

    \b
    Example:
      simcse index add my-index more.txt
    """
    reading = {name: rest.pop(name) for name in ("columns", "bad_lines")}
    check_files(files)
    opened = open_index(place)
    encoder = load_for(opened, model, **rest)
    fill(opened, files, encoder, reading)
    opened.annotate(progress={})
    _say(opened)


@index.command()
@index_argument
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--ids", "listed", type=click.File(encoding="utf-8"), help="File with one id a line.")
def remove(place: Place, ids: tuple[str, ...], listed: Any) -> None:  # noqa: ANN401 - a text file
    """Remove rows by id; the number removed is printed.

    \b
    Example:
      simcse index remove my-index 17 18
    """
    wanted = [*ids, *(line.strip() for line in listed or ())]
    if not wanted:
        raise click.UsageError("name the ids to remove")
    opened = open_index(place)
    opened.remove(filter(None, wanted))
    click.echo(f"{opened.commit().removed}")


@index.command()
@index_argument
@click.argument("queries", metavar="QUERY...", nargs=-1)
@click.option(
    "--queries", "listed", type=click.Path(path_type=Path), help="File with one query a line."
)
@click.option(
    "-k", "k", default=10, show_default=True, type=click.IntRange(1), help="Hits a query."
)
@click.option("--threshold", type=float, help="Leave out hits of a lower cosine; default: none.")
@click.option(
    "--where", multiple=True, metavar="FIELD=VALUE", help="Filter on metadata; also != > >= < <=."
)
@click.option("--model", metavar="NAME", help="Default: the model the index was built with.")
@click.option("--no-verify", is_flag=True, help="Trust the files: compare sizes, not SHA-256.")
@format_option
@precision_option("auto")
@loading_options
def search(
    place: Place,
    queries: tuple[str, ...],
    listed: Path | None,
    k: int,
    threshold: float | None,
    where: tuple[str, ...],
    model: str | None,
    no_verify: bool,
    form: str,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Find the sentences nearest to each query by cosine, best first; none is left out unasked.

    \b
    Examples:
      simcse index search my-index "someone makes music" -k 5
      simcse index search my-index "a storm" --where lang=en --where "year>=2000" --format json
    """
    from simcse.index.filters import parse_condition
    from simcse.io.records import read_texts

    asked = [*queries, *(read_texts(listed) if listed else ())]
    if not asked or not all(query.strip() for query in asked):
        raise click.UsageError("give at least one query that is not blank")
    conditions = [parse_condition(text) for text in where]
    opened = open_index(place, verify=not no_verify)
    encoder = load_for(opened, model, **loading)
    found = opened.search(encoder.encode(asked), k, threshold=threshold, where=conditions)
    show_hits(asked, found, form)


@index.command()
@index_argument
def verify(place: Place) -> None:
    """Read all that is stored and compare SHA-256; exit code 4 if something is damaged.

    Example: simcse index verify my-index
    """
    from simcse.index.uri import damages

    if bad := damages(place):
        raise ArtifactError("\n".join(bad))
    click.echo("all is as written", err=True)


@index.command()
@index_argument
@kind_option
@recall_option
def rebuild(place: Place, kind: str | None, recall: float | None) -> None:
    """Make all derived files anew from vectors and rows; also changes how the index searches.

    \b
    Examples:
      simcse index rebuild my-index
      simcse index rebuild my-index --kind hnsw --recall 0.98
    """
    from simcse.index.uri import rebuild as rebuild_index

    rebuild_index(place, kind=kind, recall=recall)  # type: ignore[arg-type]
    _say(open_index(place, verify=False))


@index.command()
@index_argument
def compact(place: Place) -> None:
    """Free the space of removed and replaced rows, and merge small segments.

    Example: simcse index compact my-index
    """
    opened = open_index(place)
    opened.compact()
    _say(opened)


@index.command()
@index_argument
@click.argument("backup_folder", metavar="BACKUP", type=FOLDER)
def backup(place: Place, backup_folder: Path) -> None:
    """Copy the index as it is now to another folder, verified; searches and additions go on.

    A backup is itself an index. Made again, it is replaced only when the new one is complete.

    Example: simcse index backup my-index /backups/my-index
    """
    from simcse.index.uri import folder_of
    from simcse.io.generations import copy_current

    copy_current(folder_of(place, instead=BACKUP), backup_folder)
    _say(open_index(backup_folder, verify=False))


@index.command()
@index_argument
@click.argument("backup_folder", metavar="BACKUP", type=FOLDER)
def restore(place: Place, backup_folder: Path) -> None:
    """Make INDEX what BACKUP is, verified; a damaged INDEX is replaced, too.

    Example: simcse index restore my-index /backups/my-index
    """
    from simcse.index.uri import folder_of
    from simcse.io.generations import copy_current

    copy_current(backup_folder, folder_of(place, instead=BACKUP))
    _say(open_index(place, verify=False))


@index.command()
@index_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(place: Place, as_json: bool) -> None:
    """Say what an index is: rows, model, kind and recall, size, metadata fields.

    Example: simcse index info my-index --json
    """
    from rich.console import Console
    from rich.table import Table

    facts = open_index(place, verify=False).describe()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        shown = f"{value:,}" if type(value) is int and name != "generation" else value
        table.add_row(name, json.dumps(value) if isinstance(value, dict | list) else str(shown))
    Console().print(table, highlight=False, markup=False)


def _say(opened: VectorIndex) -> None:
    facts = opened.describe()
    kind = facts["kind"]
    if approximation := facts["approximation"]:
        kind += f", recall@10 {approximation['recall']:.3f}"
    size = facts["bytes"] / 1e6
    click.echo(f"{opened.name}: {len(opened):,} rows, {size:,.1f} MB, {kind}", err=True)
