"""Embeddings on disk: ``.npy``, ``.safetensors`` or ``.parquet``, written in constant memory.

The number of rows is known only at the end, so the two flat formats reserve a header of fixed
size and fill it in after the last row.
"""

import contextlib
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError, DataError, UsageError
from simcse.io.files import atomic_path
from simcse.io.formats import import_pyarrow

Append = Callable[[Sequence[str], np.ndarray], None]  # n sentences, (n, D) float32
Header = Callable[[int, int], bytes]  # (N, D) -> bytes of a length that does not depend on N
Format = tuple[Callable[[Path], AbstractContextManager[Append]], Callable[[Path], np.ndarray]]

TENSOR = "embeddings"
HEADER_BYTES = 256  # of .safetensors, with the 8-byte length; the JSON is under 120


@contextlib.contextmanager
def vector_writer(path: str | Path) -> Iterator[Append]:
    """Yield a function that appends sentences and their vectors to ``path``, chunk by chunk.

    The file replaces an older one when the block ends without error. ``.npy`` is one (N, D) float32
    array; ``.safetensors`` one such tensor called ``embeddings``; ``.parquet`` has the columns
    ``text`` and ``vector``. The flat formats leave the sentences out.

    Raises:
        UsageError: the name has another suffix.
        DataError: nothing was appended, or a chunk is not (n, D) with one D and n sentences.
        ResourceError: the disk is full or read-only, or the Parquet extra is not installed.

    Example:
        >>> with vector_writer("vectors.npy") as append:  # doctest: +SKIP
        ...     for texts in batches:
        ...         append(texts, encode(texts))
    """
    path = Path(path)
    writer, _ = _format(path)
    with atomic_path(path) as temporary, writer(temporary) as append:
        dimensions = 0

        def checked(texts: Sequence[str], vectors: np.ndarray) -> None:
            nonlocal dimensions
            if vectors.ndim != 2 or 0 in vectors.shape or len(vectors) != len(texts):
                expected = f"expected vectors ({len(texts)}, D)"
                raise DataError(f"{path}: {expected} for {len(texts)} texts, got {vectors.shape}")
            dimensions = dimensions or vectors.shape[1]
            if vectors.shape[1] != dimensions:
                raise DataError(f"{path}: expected D = {dimensions}, got {vectors.shape[1]}")
            append(texts, np.ascontiguousarray(vectors, dtype="<f4"))

        yield checked
        if not dimensions:
            raise DataError(f"{path}: no vectors to write")


def read_vectors(path: str | Path) -> np.ndarray:
    """Return the (N, D) float32 array of a file `vector_writer` wrote, read-only.

    ``.npy`` and ``.safetensors`` are memory-mapped; ``.parquet`` is loaded.

    Raises:
        UsageError: the name has another suffix.
        ArtifactError: the file is missing, truncated or holds something else.
        ResourceError: the Parquet extra is not installed.
    """
    path = Path(path)
    _, reader = _format(path)
    try:
        vectors = reader(path)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"cannot read vectors from {path}: {error}") from error
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        found = f"{vectors.dtype} {vectors.shape}"
        raise ArtifactError(f"{path}: expected (N, D) float32 vectors, got {found}")
    return vectors


@contextlib.contextmanager
def _write_flat(path: Path, *, header: Header) -> Iterator[Append]:
    """Write rows of float32 after a header that is written again when N is known."""
    shape = (0, 0)
    with path.open("wb") as stream:
        stream.write(header(*shape))

        def append(texts: Sequence[str], vectors: np.ndarray) -> None:
            nonlocal shape
            stream.write(vectors.data)
            shape = (shape[0] + len(texts), vectors.shape[1])

        yield append
        stream.seek(0)
        stream.write(header(*shape))


def _npy_header(rows: int, dimensions: int) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"


def _safetensors_header(rows: int, dimensions: int) -> bytes:
    end = rows * dimensions * 4
    tensor = {"dtype": "F32", "shape": [rows, dimensions], "data_offsets": [0, end]}
    text = json.dumps({TENSOR: tensor}).ljust(HEADER_BYTES - 8)  # the format allows end spaces
    return struct.pack("<Q", len(text)) + text.encode()


@contextlib.contextmanager
def _write_parquet(path: Path) -> Iterator[Append]:
    pyarrow = import_pyarrow()
    with contextlib.ExitStack() as stack:
        writer: Any = None

        def append(texts: Sequence[str], vectors: np.ndarray) -> None:
            nonlocal writer
            flat = pyarrow.array(vectors.reshape(-1))
            column = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            table = pyarrow.table({"text": list(texts), "vector": column})
            if writer is None:
                writer = stack.enter_context(pyarrow.parquet.ParquetWriter(path, table.schema))
            writer.write_table(table)

        yield append


def _read_safetensors(path: Path) -> np.ndarray:
    """Map a file of this writer; other headers are not trusted, and allocate nothing."""
    with path.open("rb") as stream:
        found = stream.read(HEADER_BYTES)
    try:
        rows, dimensions = map(int, json.loads(found[8:])[TENSOR]["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a file of this writer ({error})") from error
    expected, size = HEADER_BYTES + rows * dimensions * 4, path.stat().st_size
    if found != _safetensors_header(rows, dimensions) or size != expected:
        raise ValueError(f"header and size disagree: expected {expected} bytes, got {size}")
    return np.memmap(path, "<f4", "r", offset=HEADER_BYTES, shape=(rows, dimensions))


def _read_parquet(path: Path) -> np.ndarray:
    pyarrow = import_pyarrow()
    try:
        column = pyarrow.parquet.read_table(path, columns=["vector"])["vector"].combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(column), -1)
    except (pyarrow.ArrowException, KeyError, AttributeError) as error:
        raise ValueError(f"no column of vectors ({error})") from error
    vectors.flags.writeable = False
    return np.asarray(vectors)


_FORMATS: dict[str, Format] = {
    ".npy": (
        partial(_write_flat, header=_npy_header),
        partial(np.load, mmap_mode="r", allow_pickle=False),
    ),
    ".safetensors": (partial(_write_flat, header=_safetensors_header), _read_safetensors),
    ".parquet": (_write_parquet, _read_parquet),
}


def _format(path: Path) -> Format:
    if path.suffix not in _FORMATS:
        raise UsageError(f"vectors are stored as {', '.join(_FORMATS)}, got {path}")
    return _FORMATS[path.suffix]
