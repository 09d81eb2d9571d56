"""``simcse index``: search over one's own sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.indexing import (
    INDEX_URI,
    check_files,
    fill_index,
    index_model_option,
    load_for,
    load_with_fingerprint,
    show_hits,
)
from simcse.cli.options import loading_options, model_option, precision_option
from simcse.cli.output import format_option
from simcse.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from simcse.index.approximate import IndexType
    from simcse.index.protocol import VectorIndex
    from simcse.index.uri import IndexUri

INDEX_TYPES = ("exact", "hnsw", "ivf", "int8", "binary")
FOLDER = click.Path(path_type=Path, file_okay=False)
BACKUP = "PostgreSQL has its own backups: pg_dump --schema=INDEX, pg_restore"
index_argument = click.argument("uri", metavar="INDEX", type=INDEX_URI)
backup_argument = click.argument("backup_folder", metavar="BACKUP", type=FOLDER)
type_option = click.option(
    "--type",
    "index_type",
    type=click.Choice(INDEX_TYPES),
    help="Index type: exact (the default), or an approximate one, whose recall is measured.",
)
recall_option = click.option(
    "--recall",
    type=click.FloatRange(0, 1),
    help="Recall@10 that an approximate index must reach, else its build fails; default 0.95.",
)


def reading_options(command: Any) -> Any:  # noqa: ANN401 - click decorates any function
    """Add the options about the columns and bad lines of the input files."""
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
    """Build, search and maintain an index of your own sentences.

    INDEX is a folder, or with the extra simcse-next[postgres] a database with pgvector:
    postgresql://user@host/database#index, for many writers at once.

    \b
    Start here:
      simcse index build my-index sentences.txt
      simcse index search my-index "someone makes music"
    """


@index.command("build")
@index_argument
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@model_option
@type_option
@recall_option
@reading_options
@precision_option("auto")
@loading_options
def build_command(
    uri: IndexUri,
    files: tuple[str, ...],
    model: str,
    index_type: IndexType | None,
    recall: float | None,
    **rest: Any,  # noqa: ANN401
) -> None:
    """Build an index of sentences; interrupted, the same command resumes it.

    FILE is .txt with one sentence a line, .tsv, .csv, .jsonl (each also gzipped) or .parquet
    (columns text and id, all others are metadata), or - for standard input. Rows of the same id,
    and without ids of the same text, are one row: the last.

    \b
    Examples:
      simcse index build my-index sentences.txt
      simcse index build my-index articles.jsonl --columns title --type hnsw --recall 0.98
      simcse index build postgresql://localhost/texts#articles articles.jsonl
    """
    from simcse.index.approximate import RECALL
    from simcse.index.uri import create_index, has_index, open_index

    reading = {name: rest.pop(name) for name in ("columns", "bad_lines")}
    check_files(files)
    encoder, fingerprint = load_with_fingerprint(model, **rest)
    if has_index(uri):
        opened = open_index(uri)
        metadata = opened.metadata
        if not metadata.progress:
            raise UsageError(
                f"{metadata.name} is built already. Add to it with: simcse index add INDEX FILE, "
                "or name a new index."
            )
        metadata.require_model(fingerprint)
        click.echo(f"resuming {metadata.name}: {len(opened):,} rows are stored", err=True)
    else:
        opened = create_index(
            uri,
            fingerprint,
            index_type=index_type or "exact",
            recall=RECALL if recall is None else recall,
            progress={"build": 0},
        )
    fill_index(opened, files, encoder, reading)
    if (wanted := opened.metadata.index_type) != "exact":
        click.echo(f"building {wanted} and measuring its recall ...", err=True)
        opened.rebuild()
    opened.commit(progress=None)
    _summarize(opened)


@index.command("add")
@index_argument
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@index_model_option
@reading_options
@precision_option("auto")
@loading_options
def add_command(
    uri: IndexUri,
    files: tuple[str, ...],
    model: str | None,
    **rest: Any,  # noqa: ANN401
) -> None:
    """Add sentences; a row replaces the one of the same id.

    \b
    Example:
      simcse index add my-index more.txt
    """
    reading = {name: rest.pop(name) for name in ("columns", "bad_lines")}
    check_files(files)
    from simcse.index.uri import open_index

    opened = open_index(uri)
    encoder = load_for(opened, model, **rest)
    fill_index(opened, files, encoder, reading)
    opened.commit(progress=None)
    _summarize(opened)


@index.command("remove")
@index_argument
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--ids", "listed", type=click.File(encoding="utf-8"), help="File with one id a line.")
def remove_command(
    uri: IndexUri,
    ids: tuple[str, ...],
    listed: Any,  # noqa: ANN401 - a text file
) -> None:
    """Remove rows by id; the number removed is printed.

    \b
    Example:
      simcse index remove my-index 17 18
    """
    from simcse.index.uri import open_index

    wanted = [*ids, *(line.strip() for line in listed or ())]
    if not wanted:
        raise click.UsageError("name the ids to remove")
    opened = open_index(uri)
    opened.remove(filter(None, wanted))
    click.echo(f"{opened.commit().removed}")


@index.command("search")
@index_argument
@click.argument("queries", metavar="QUERY...", nargs=-1)
@click.option(
    "--queries", "listed", type=click.Path(path_type=Path), help="File with one query a line."
)
@click.option(
    "-k", "k", default=10, show_default=True, type=click.IntRange(1), help="Hits for each query."
)
@click.option("--threshold", type=float, help="Lowest cosine of a hit; by default there is none.")
@click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Filter on a metadata field; also with != > >= < <=.",
)
@index_model_option
@format_option
@precision_option("auto")
@loading_options
def search_command(
    uri: IndexUri,
    queries: tuple[str, ...],
    listed: Path | None,
    k: int,
    threshold: float | None,
    where: tuple[str, ...],
    model: str | None,
    form: str,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Find the sentences nearest to each query by cosine, best first; none is left out unasked.

    What a search reads is checked; to check the whole index: simcse index verify INDEX.

    \b
    Examples:
      simcse index search my-index "someone makes music" -k 5
      simcse index search my-index "a storm" --where lang=en --where "year>=2000" --format json
    """
    import numpy as np

    from simcse.index.filters import parse_condition
    from simcse.io.records import read_texts

    asked = [*queries, *(read_texts(listed) if listed else ())]
    if not asked or not all(query.strip() for query in asked):
        raise click.UsageError("give at least one query that is not blank")
    conditions = [parse_condition(text) for text in where]
    from simcse.index.uri import open_index

    opened = open_index(uri)
    # Wrong options and missing extras fail here, before the model is loaded.
    nothing = np.empty((0, opened.metadata.fingerprint.dimensions), np.float32)
    opened.search(nothing, k, threshold=threshold, where=conditions)
    encoder = load_for(opened, model, **loading)
    found = opened.search(encoder.encode(asked), k, threshold=threshold, where=conditions)
    show_hits(asked, found, form)


@index.command("verify")
@index_argument
def verify_command(uri: IndexUri) -> None:
    """Read everything that is stored and compare checksums; exit code 4 if something is damaged.

    Example: simcse index verify my-index
    """
    from simcse.index.uri import open_index

    if problems := open_index(uri).verify():
        raise ArtifactError("\n".join(problems))
    click.echo("the index is as it was written", err=True)


@index.command("rebuild")
@index_argument
@type_option
@recall_option
def rebuild_command(uri: IndexUri, index_type: IndexType | None, recall: float | None) -> None:
    """Rebuild derived files from vectors and rows; also changes how the index searches.

    \b
    Examples:
      simcse index rebuild my-index
      simcse index rebuild my-index --type hnsw --recall 0.98
    """
    from simcse.index.uri import open_index

    opened = open_index(uri)
    opened.rebuild(index_type=index_type, recall=recall)
    _summarize(opened)


@index.command("compact")
@index_argument
def compact_command(uri: IndexUri) -> None:
    """Free the space of removed and replaced rows, and merge small chunks.

    Example: simcse index compact my-index
    """
    from simcse.index.uri import open_index

    opened = open_index(uri)
    opened.rebuild(compact=True)
    _summarize(opened)


@index.command("backup")
@index_argument
@backup_argument
def backup_command(uri: IndexUri, backup_folder: Path) -> None:
    """Copy the index as it is now to another folder, verified; searches and additions go on.

    A backup is itself an index. Made again, it is replaced only when the new one is complete.

    Example: simcse index backup my-index /backups/my-index
    """
    from simcse.index.uri import index_folder

    _copy(index_folder(uri, instead=BACKUP), backup_folder)


@index.command("restore")
@index_argument
@backup_argument
def restore_command(uri: IndexUri, backup_folder: Path) -> None:
    """Make INDEX a copy of BACKUP, verified; a damaged INDEX is replaced, too.

    Example: simcse index restore my-index /backups/my-index
    """
    from simcse.index.uri import index_folder

    _copy(backup_folder, index_folder(uri, instead=BACKUP))


@index.command("info")
@index_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def index_info_command(uri: IndexUri, as_json: bool) -> None:
    """Print a description of the index: rows, model, type and recall, size, metadata fields.

    Example: simcse index info my-index --json
    """
    from rich.console import Console
    from rich.table import Table

    from simcse.index.uri import open_index

    described = open_index(uri).metadata.describe()
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in described.items():
        shown = f"{value:,}" if type(value) is int and name != "version" else value
        table.add_row(name, json.dumps(value) if isinstance(value, dict | list) else str(shown))
    Console().print(table, highlight=False, markup=False)


def _copy(source: Path, target: Path) -> None:
    from simcse.index.sqlite_backup import copy_index
    from simcse.index.uri import open_index

    copy_index(source, target)
    _summarize(open_index(target))


def _summarize(opened: VectorIndex) -> None:
    metadata = opened.metadata
    index_type: str = metadata.index_type
    if metadata.approximation is not None:
        index_type += f", recall@10 {metadata.approximation.recall:.3f}"
    size = metadata.read_storage()["bytes"] / 1e6
    click.echo(f"{metadata.name}: {len(opened):,} rows, {size:,.1f} MB, {index_type}", err=True)
