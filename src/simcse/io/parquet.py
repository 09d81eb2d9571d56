"""Rows of a Parquet file, through the optional package pyarrow."""

from collections.abc import Iterator, Sequence
from itertools import chain
from types import ModuleType
from typing import Any

from simcse.errors import DataError, ResourceError
from simcse.io.files import Source


def import_pyarrow() -> ModuleType:
    """Return the module ``pyarrow`` with ``pyarrow.parquet`` loaded.

    Raises:
        ResourceError: the extra is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        message = "Parquet files need an extra: pip install 'simcse-next[parquet]'"
        raise ResourceError(message) from error
    return pyarrow  # type: ignore[no-any-return]


def read_parquet(source: Source, columns: Sequence[str] = ()) -> Iterator[tuple[int, Any]]:
    """Yield each row's number, from 1, and its named columns (all if none) as a dictionary.

    Raises:
        DataError: the file is not Parquet or lacks a column.
        ResourceError: the extra is not installed.
    """
    pyarrow = import_pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(source.path) as table:
            lacking = [name for name in columns if name not in table.schema_arrow.names]
            if lacking:
                known = ", ".join(table.schema_arrow.names)
                raise DataError(f"{source}: no column {lacking[0]!r}, the file has: {known}")
            batches = table.iter_batches(batch_size=4096, columns=list(columns) or None)
            yield from enumerate(chain.from_iterable(b.to_pylist() for b in batches), start=1)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {source}: {error}") from error
