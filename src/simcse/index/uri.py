"""Where an index is: a folder, or an address in PostgreSQL."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from simcse.errors import ResourceError, UsageError
from simcse.index.approximate import RECALL, Kind
from simcse.index.embedded import EmbeddedIndex
from simcse.index.embedded import rebuild as rebuild_folder
from simcse.index.protocol import VectorIndex
from simcse.index.snapshot import damages as read_all
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.generations import POINTER

if TYPE_CHECKING:
    from simcse.index.postgres import PostgresIndex

SCHEMES = ("postgresql://", "postgres://")
Place = str | Path


def is_address(place: Place) -> bool:
    """Say whether ``place`` is an address in PostgreSQL."""
    return isinstance(place, str) and place.startswith(SCHEMES)


def folder_of(place: Place, *, instead: str) -> Path:
    """Return the folder that ``place`` is.

    Raises:
        UsageError: it is an address; do ``instead``.
    """
    if is_address(place):
        raise UsageError(f"{place} is no folder; {instead}")
    return Path(place)


def open_index(place: Place, *, verify: bool = True) -> VectorIndex:
    """Open an index.

    Args:
        place: a folder, or ``postgresql://user@host/database#index``.
        verify: of a folder compare the SHA-256 of every file, else only sizes.

    Raises:
        ArtifactError: there is none, or it is damaged.
        ResourceError: the server cannot be reached, or the extra is not installed.
    """
    if is_address(place):
        return _postgres().open(str(place))
    return EmbeddedIndex.open(Path(place), verify=verify)


def create_index(
    place: Place,
    fingerprint: ModelFingerprint,
    *,
    kind: Kind = "exact",
    recall: float = RECALL,
    progress: Mapping[str, int] | None = None,
) -> VectorIndex:
    """Make an empty index; see `EmbeddedIndex.create` and `PostgresIndex.create`.

    Raises:
        UsageError: there is something, or the kind is unknown there.
        ResourceError: the disk is full, the server refuses, or the extra is not installed.
    """
    if is_address(place):
        return _postgres().create(
            str(place), fingerprint, kind=kind, recall=recall, progress=progress
        )
    return EmbeddedIndex.create(
        Path(place), fingerprint, kind=kind, recall=recall, progress=progress
    )


def has_index(place: Place) -> bool:
    """Say whether there is an index.

    Raises:
        ResourceError: the server cannot be reached, or the extra is not installed.
    """
    return _postgres().exists(str(place)) if is_address(place) else (Path(place) / POINTER).exists()


def damages(place: Place) -> list[str]:
    """Read all that is stored; return what is wrong, also where an index cannot be opened.

    Raises:
        ArtifactError: there is no index, or a folder's pointer or manifest are damaged.
    """
    return _postgres().open(str(place)).verify() if is_address(place) else read_all(Path(place))


def rebuild(place: Place, *, kind: Kind | None = None, recall: float | None = None) -> None:
    """Make all that is derived from the rows anew, also where it is damaged.

    Raises:
        ArtifactError: vectors or rows are damaged.
        NumericError: the recall is not reached; the index stays as it was.
    """
    if is_address(place):
        _postgres().open(str(place)).rebuild(kind=kind, recall=recall)
    else:
        rebuild_folder(Path(place), kind=kind, recall=recall)


def _postgres() -> "type[PostgresIndex]":
    try:
        from simcse.index.postgres import PostgresIndex
    except ImportError as error:
        message = f"PostgreSQL needs an extra ({error.name}): pip install 'simcse-next[postgres]'"
        raise ResourceError(message) from error
    return PostgresIndex
