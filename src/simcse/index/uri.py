"""Indexes by their URI: a folder, or an address in PostgreSQL."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from simcse.errors import ResourceError, UsageError
from simcse.index.approximate import RECALL, IndexType
from simcse.index.protocol import VectorIndex
from simcse.index.sqlite import SqliteIndex
from simcse.index.sqlite_schema import DATABASE
from simcse.io.fingerprint import ModelFingerprint

if TYPE_CHECKING:
    from simcse.index.postgres import PostgresIndex

SCHEMES = ("postgresql://", "postgres://")
IndexUri = str | Path


def is_postgres(uri: IndexUri) -> bool:
    """Return whether a URI is an address in PostgreSQL."""
    return isinstance(uri, str) and uri.startswith(SCHEMES)


def index_folder(uri: IndexUri, *, instead: str) -> Path:
    """Return the folder of an index.

    Raises:
        UsageError: the URI is an address; do ``instead``.
    """
    if is_postgres(uri):
        raise UsageError(f"{uri} is no folder; {instead}")
    return Path(uri)


def open_index(uri: IndexUri, *, verify: bool = False) -> VectorIndex:
    """Open an index.

    Args:
        uri: a folder, or ``postgresql://user@host/database#index``.
        verify: of a folder read everything, see `SqliteIndex.open`.

    Raises:
        ArtifactError: there is none, or it is damaged.
        ResourceError: the server cannot be reached, or the extra is not installed.
    """
    if is_postgres(uri):
        return _postgres().open(str(uri))
    return SqliteIndex.open(Path(uri), verify=verify)


def create_index(
    uri: IndexUri,
    fingerprint: ModelFingerprint,
    *,
    index_type: IndexType = "exact",
    recall: float = RECALL,
    progress: Mapping[str, int] | None = None,
) -> VectorIndex:
    """Make an empty index; see `SqliteIndex.create` and `PostgresIndex.create`.

    Raises:
        UsageError: something is there, or the type is unknown there.
        ResourceError: the disk is full, the server refuses, or the extra is not installed.
    """
    create = _postgres().create if is_postgres(uri) else SqliteIndex.create
    return create(str(uri), fingerprint, index_type=index_type, recall=recall, progress=progress)


def has_index(uri: IndexUri) -> bool:
    """Return whether there is an index.

    Raises:
        ResourceError: the server cannot be reached, or the extra is not installed.
    """
    return _postgres().exists(str(uri)) if is_postgres(uri) else (Path(uri) / DATABASE).exists()


def _postgres() -> "type[PostgresIndex]":
    try:
        from simcse.index.postgres import PostgresIndex
    except ImportError as error:
        message = f"PostgreSQL needs an extra ({error.name}): pip install 'simcse-next[postgres]'"
        raise ResourceError(message) from error
    return PostgresIndex
