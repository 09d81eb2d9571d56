"""Files of an index in a folder: vectors in immutable ``.npy`` chunks, hashed when written.

Names are made from numbers, which are never used twice in a folder. A file is complete and on the
disk before the database names it, and never changes after that.
"""

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcse.errors import ArtifactError, ResourceError
from simcse.io.files import sha256_file

CHUNK_ROWS = 32_768  # 50 MB of vectors of 384 dimensions
CHUNK_NAME = "vectors-{:06d}.npy"
STRUCTURE_NAME = "approximate-{:06d}.faiss"
_NAMES = re.compile(r"(?:vectors-(\d{6,})\.npy|approximate-(\d{6,})\.faiss)")


@dataclass(frozen=True)
class StoredFile:
    """A file as it was when it was written."""

    path: Path  # where it is
    size: int  # in bytes
    sha256: str  # checksum of its bytes

    @classmethod
    def of(cls, path: Path) -> "StoredFile":
        """Bring a new file to the disk and record it.

        Raises:
            OSError: the disk is full.
        """
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        return cls(path, path.stat().st_size, sha256_file(path))

    def require_size(self) -> None:
        """Check that the file is there, no link, and has its size.

        Raises:
            ArtifactError: otherwise.
        """
        if self.path.is_symlink():
            raise ArtifactError(f"{self.path} is a link, which is not followed: expected a file")
        if not self.path.is_file():
            raise ArtifactError(f"{self.path} is missing")
        if (found := self.path.stat().st_size) != self.size:
            raise ArtifactError(
                f"{self.path} is damaged: expected {self.size:,} bytes, got {found:,}"
            )

    def check(self) -> None:
        """Read the file and compare its checksum.

        Raises:
            ArtifactError: it is missing or differs.
        """
        self.require_size()
        self._compare(sha256_file(self.path))

    def read(self) -> bytes:
        """Return the bytes of the file; what is returned is what was compared.

        Raises:
            ArtifactError: it is missing or differs.
        """
        self.require_size()
        data = self.path.read_bytes()
        self._compare(hashlib.sha256(data).hexdigest())
        return data

    def copy_to(self, path: Path) -> None:
        """Copy the file and compare the checksum of the copy.

        Raises:
            ArtifactError: the file is missing or differs.
            OSError: the disk is full.
        """
        self.require_size()
        with self.path.open("rb") as source, path.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
        self._compare(StoredFile.of(path).sha256)

    def _compare(self, sha256: str) -> None:
        if sha256 != self.sha256:
            raise ArtifactError(
                f"{self.path} is damaged: its SHA-256 differs from the recorded one"
            )


def write_chunk(path: Path, vectors: np.ndarray) -> StoredFile:
    """Write vectors (n, D) float32 as a chunk and bring it to the disk.

    Raises:
        OSError: the disk is full.
    """
    with path.open("wb") as stream:
        stream.write(_header(*vectors.shape))
        stream.write(np.ascontiguousarray(vectors, "<f4").data)
    return StoredFile.of(path)


def map_chunk(file: StoredFile, rows: int, dimensions: int) -> np.ndarray:
    """Return the vectors of a chunk, memory-mapped: (n, D) float32.

    Raises:
        ArtifactError: the file is missing, or has another size or header.
    """
    header = _header(rows, dimensions)
    file.require_size()
    with file.path.open("rb") as stream:
        if stream.read(len(header)) != header or file.size != len(header) + 4 * rows * dimensions:
            raise ArtifactError(
                f"{file.path} is damaged: expected {rows:,} vectors (N, {dimensions})"
            )
        mapped = np.memmap(stream, "<f4", "r", len(header), (rows, dimensions))
    return mapped.view(np.ndarray)


def read_chunk(file: StoredFile, rows: int, dimensions: int) -> np.ndarray:
    """Return the vectors of a chunk in memory, after its checksum was compared: (n, D) float32.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    map_chunk(file, rows, dimensions)
    offset = len(_header(rows, dimensions))
    return np.frombuffer(file.read(), "<f4", offset=offset).reshape(rows, dimensions)


def file_number(name: str) -> int:
    """Return the number in the name of an index's file, 0 for other files."""
    match = _NAMES.fullmatch(name)
    return int(match[1] or match[2]) if match else 0


def remove_unknown(folder: Path, known: set[str]) -> None:
    """Remove files of killed writers and of earlier commits, which readers have open or mapped."""
    for path in folder.iterdir():
        if file_number(path.name) and path.name not in known:
            with contextlib.suppress(OSError):  # open on Windows: the next writer removes it
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Bring the names of new files to the disk, where the system lets a folder be opened."""
    with contextlib.suppress(PermissionError):  # Windows
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into the error of this package.

    Raises:
        ResourceError: the disk is full or read-only.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror or error}") from error


def _header(rows: int, dimensions: int) -> bytes:
    stream = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimensions)}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()
