"""Rows with their embeddings as Parquet: one shard of a folder that bulk encoding fills."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError
from simcse.io.files import atomic_path
from simcse.io.formats import import_pyarrow
from simcse.io.rows import IndexRow

FIELDS = ("id", "text", "metadata")
RowChunk = tuple[Sequence[IndexRow], np.ndarray]  # n rows, (n, D) float32


def write_shard(path: Path, chunks: Iterable[RowChunk]) -> int:
    """Write rows as ``id``, ``text``, ``metadata`` (JSON) and ``vector``; return their number.

    The file appears when its last chunk is written, so a file that exists is complete.

    Raises:
        ResourceError: the disk is full or read-only, or the Parquet extra is not installed.
    """
    pyarrow = import_pyarrow()
    count, writer = 0, None
    with atomic_path(path) as temporary:
        try:
            for rows, vectors in chunks:
                table = _table(pyarrow, rows, vectors)
                writer = writer or pyarrow.parquet.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
                count += len(rows)
        finally:
            if writer is not None:
                writer.close()
    return count


def read_shard(path: Path) -> Iterator[RowChunk]:
    """Yield the rows of a file that `write_shard` wrote, some thousand at a time.

    Raises:
        ArtifactError: the file is missing or something else.
        ResourceError: the Parquet extra is not installed.
    """
    pyarrow = import_pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as stored:
            for batch in stored.iter_batches(batch_size=4096):
                vectors = batch["vector"].flatten().to_numpy().reshape(batch.num_rows, -1)
                fields = zip(*(batch[name].to_pylist() for name in FIELDS), strict=True)
                rows = [IndexRow(row_id, text, json.loads(data)) for row_id, text, data in fields]
                yield rows, vectors
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise ArtifactError(f"cannot read {path}: {error}") from error


def _table(pyarrow: Any, rows: Sequence[IndexRow], vectors: np.ndarray) -> Any:  # noqa: ANN401 - untyped
    flat = pyarrow.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    columns = {
        "id": [row.id for row in rows],
        "text": [row.text for row in rows],
        "metadata": [json.dumps(row.metadata, ensure_ascii=False) for row in rows],
        "vector": pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    return pyarrow.table(columns)
