"""Verification of an index in a folder: everything is read and compared with its checksums."""

from collections.abc import Iterator

import numpy as np

from simcse.errors import ArtifactError
from simcse.index.sqlite_filters import metadata_entries
from simcse.index.sqlite_schema import checksum, database_errors
from simcse.index.sqlite_view import View, parse_row

SHOWN = 10  # messages about rows


def row_damage(view: View) -> list[str]:
    """Read rows and vectors; return a message for each damage found."""
    problems = list(_file_damage(view))
    try:
        problems += _database_damage(view)
        rows = list(_row_messages(view))
    except ArtifactError as error:
        return [*problems, str(error)]
    more = [f"{view.path}: {len(rows) - SHOWN:,} more rows are damaged"] if rows[SHOWN:] else []
    return [*problems, *rows[:SHOWN], *more]


def derived_damage(view: View) -> list[str]:
    """Read what is derived from rows and vectors; return a message for each damage found."""
    problems = metadata_damage(view)
    if view.structure is not None:
        try:
            view.structure.check()
        except ArtifactError as error:
            problems.append(str(error))
    return problems


def metadata_damage(view: View) -> list[str]:
    """Compare the table ``metadata`` with the metadata of the rows, entry by entry."""
    stored, derived = 0, 0
    try:
        with view.lock, database_errors(view.path):
            for entry in view.connection.execute("SELECT * FROM metadata"):
                stored += checksum(*entry)
        for start, end in zip(view.starts.tolist(), view.starts[1:].tolist(), strict=False):
            for line in view.stored_rows(start, end):
                row = parse_row(line, view.vector(line[0]), view.path)
                derived += sum(
                    checksum(*entry, line[0]) for entry in metadata_entries(row.metadata)
                )
    except ArtifactError as error:
        return [str(error)]
    if stored != derived:
        return [f"{view.path} is damaged: the table metadata differs from the rows' metadata"]
    return []


def _file_damage(view: View) -> Iterator[str]:
    for chunk in view.chunks:
        try:
            chunk.file.check()
        except ArtifactError as error:
            yield str(error)


def _database_damage(view: View) -> list[str]:
    with view.lock, database_errors(view.path):
        found = view.connection.execute(f"PRAGMA integrity_check({SHOWN})").fetchall()
        (rows,) = view.connection.execute("SELECT count(*) FROM rows").fetchone()
    problems = [f"{view.path} is damaged: {message}" for (message,) in found if message != "ok"]
    if rows != len(view):
        problems.append(f"{view.path} is damaged: expected {len(view):,} rows, found {rows:,}")
    return problems


def _row_messages(view: View) -> Iterator[str]:
    live = view.live
    for start, end in zip(view.starts.tolist(), view.starts[1:].tolist(), strict=False):
        lines = view.stored_rows(start, end)
        expected = np.flatnonzero(live[start:end]) + start
        if [line[0] for line in lines] != expected.tolist():
            yield f"{view.path} is damaged: rows from {start:,} to {end - 1:,} are missing"
        for line in lines:
            try:
                parse_row(line, view.vector(line[0]), view.path)
            except ArtifactError as error:
                yield str(error)
