"""The database of an index in a folder: its tables, connections and errors.

============ ==================================================================================
``info``     one row: number of the commit, and everything beside the rows as JSON
``chunks``   the vectors' files in order: rows, size, SHA-256, and which rows are live
``rows``     position (in the chunks, one after another), id, text, metadata as JSON
``metadata`` derived from ``rows``, see `simcse.index.sqlite_filters`
============ ==================================================================================

Each row of the first three tables has a CRC-32 of its values, that of ``rows`` over the vector,
too: SQLite itself does not notice a bit that was flipped on the disk. It is compared whenever the
row is read.
"""

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from simcse.errors import ArtifactError, ResourceError

DATABASE = "index.db"
NEW_DATABASE = "index.db.new"  # not complete yet
FORMAT = 1  # stored as SQLite's user_version
BUSY_SECONDS = 10.0  # SQLite's own lock: our writers take turns by the folder's lock
TABLES = (
    "CREATE TABLE info (version INTEGER NOT NULL, state TEXT NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE chunks (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, live BLOB, crc INTEGER NOT NULL)",
    "CREATE TABLE rows (position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL,"
    " metadata TEXT NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE metadata (field TEXT NOT NULL, type INTEGER NOT NULL, value NOT NULL,"
    " position INTEGER NOT NULL, PRIMARY KEY (field, type, value, position)) WITHOUT ROWID",
)
_CAUSES = {  # words in a message of SQLite
    "full": "No space left on device",
    "locked": "another process is writing; try again when it is done",
    "readonly": "it is read-only",
    "unable to open": "unable to open the database",
    "disk I/O error": "disk I/O error",
}


def connect(path: Path, *, write: bool = False) -> sqlite3.Connection:
    """Open the database; a folder that cannot be written is read without SQLite's lock files.

    Raises:
        ArtifactError: the database or a file beside it is missing or a link.
        sqlite3.DatabaseError: it cannot be opened.
    """
    for file in database_files(path):
        if file.is_symlink():
            raise ArtifactError(f"{file} is a link, which is not followed: expected a file")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    mode = "rw"
    if not write and not _can_write(path):
        mode = "ro" if Path(f"{path}-wal").exists() else "ro&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    for setting in ("synchronous=FULL", "trusted_schema=OFF", "cell_size_check=ON"):
        connection.execute(f"PRAGMA {setting}")
    return connection


def database_files(path: Path) -> list[Path]:
    """Return the paths of a database and of the files that SQLite keeps beside it."""
    return [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")]


def open_new(path: Path) -> sqlite3.Connection:
    """Open an empty database in place of what an interrupted process left there."""
    for file in database_files(path):
        file.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Check the format before anything else is read.

    Raises:
        ArtifactError: it is another one; nothing was changed.
    """
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found != FORMAT:
        raise ArtifactError(
            f"{path}: expected an index of format {FORMAT}, found format {found}. Read it with the "
            "version of simcse that wrote it, or build it anew: simcse index build NEW FILE"
        )


def create_tables(connection: sqlite3.Connection, state: dict[str, Any]) -> None:
    """Write the tables of an empty index into a new database."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN")
    for statement in TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={FORMAT}")
    write_state(connection, 1, state)
    connection.execute("COMMIT")


def read_state(connection: sqlite3.Connection) -> tuple[int, dict[str, Any]]:
    """Return the number of the commit and the state beside the rows.

    Raises:
        ArtifactError: it is damaged.
    """
    found = connection.execute("SELECT version, state, crc FROM info").fetchall()
    if len(found) != 1 or checksum(*found[0][:2]) != found[0][2]:
        raise ArtifactError("the table info is damaged")
    version, text, _ = found[0]
    state: dict[str, Any] = json.loads(text)
    return version, state


def write_state(connection: sqlite3.Connection, version: int, state: dict[str, Any]) -> None:
    """Replace the state beside the rows."""
    text = json.dumps(state, allow_nan=False)
    connection.execute("DELETE FROM info")
    connection.execute(
        "INSERT INTO info VALUES (?, ?, ?)", [version, text, checksum(version, text)]
    )


def checksum(*values: object, vector: np.ndarray | None = None) -> int:
    """Return the CRC-32 of a table's row, with the row's vector (D,) if it has one."""
    text = "\0".join(map(str, values)).encode("utf-8", "surrogatepass")
    return zlib.crc32(text) if vector is None else zlib.crc32(vector.data, zlib.crc32(text))


@contextlib.contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn an error of SQLite into the error of this package.

    Raises:
        ResourceError: the disk is full or read-only, or another program holds the database.
        ArtifactError: the database is damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        message = str(error)
        if isinstance(error, sqlite3.OperationalError):
            for words, cause in _CAUSES.items():
                if words in message:
                    raise ResourceError(f"cannot write {path.parent}: {cause}") from error
        raise ArtifactError(f"{path} is damaged: {message}") from error


def _can_write(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
