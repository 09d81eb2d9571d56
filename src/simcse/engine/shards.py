"""What is to be encoded, cut into shards, and what of it is done.

A folder holds ``manifest.json``, written before anything else, and a part for each shard that is
done. A part takes its place only when it is complete and a shard done twice is the same part, so
whoever is killed, nothing is lost or doubled, and any engine goes on where another one stopped.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError, DataError, UsageError
from simcse.index.protocol import Commit, VectorIndex
from simcse.io.checkpoints import read_json
from simcse.io.files import ReadCounts, sha256_file, write_text
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.locks import LOCK
from simcse.io.parquet_shards import read_shard, write_shard
from simcse.io.rows import IndexRow, read_rows

MANIFEST = "manifest.json"
ROWS = 50_000  # of a shard: a minute of work, 80 MB of vectors of 384 dimensions
ENCODE_ROWS = 4096  # encoded together
Encode = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Shard:
    """Some rows of a file, and the part they become.

    Attributes:
        file: absolute path.
        sha256: of the file.
        first: rows of the file before this shard.
        rows: of this shard.
        part: name of the file its rows and vectors are written to.
    """

    file: str
    sha256: str
    first: int
    rows: int
    part: str


@dataclass(frozen=True)
class Manifest:
    """All that decides what the parts hold.

    Attributes:
        fingerprint: the model.
        precision: number format it runs in.
        truncation: what becomes of sentences over the length limit.
        reading: how the files are read; see `read_rows`.
        shards: in the order of the rows.
    """

    fingerprint: ModelFingerprint
    precision: str
    truncation: str
    reading: dict[str, str]
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    def missing(self, folder: Path) -> list[Shard]:
        """Return the shards whose part is not there."""
        return [shard for shard in self.shards if not (folder / shard.part).exists()]


def plan(
    files: Sequence[str | Path], *, rows: int, reading: dict[str, str], counts: ReadCounts
) -> tuple[Shard, ...]:
    """Cut files into shards of at most ``rows`` rows; all of them are read once for this.

    Raises:
        UsageError: a file is standard input, which cannot be read again.
        DataError: a file is missing or has a bad row, or there are no rows.
    """
    shards: list[Shard] = []
    for path in map(Path, files):
        if str(path) == "-":
            raise UsageError("standard input has no shards; write it to a file first")
        before = counts.rows
        for _ in read_rows(path, counts=counts, **reading):  # type: ignore[arg-type]
            pass
        count = counts.rows - before
        checksum = sha256_file(path)
        for first in range(0, count, rows):
            name = f"part-{len(shards):05d}.parquet"
            shard = Shard(str(path.resolve()), checksum, first, min(rows, count - first), name)
            shards.append(shard)
    if not shards:
        raise DataError(f"no usable rows ({counts})")
    return tuple(shards)


def take_up(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a new folder, or see that what is there is the same job.

    Raises:
        UsageError: something else is in the folder.
        ArtifactError: another job is, with what differs.
        ResourceError: the disk is full or read-only.
    """
    path, wanted = folder / MANIFEST, json.loads(json.dumps(dataclasses.asdict(manifest)))
    if not path.exists():
        if folder.exists() and {found.name for found in folder.iterdir()} - {LOCK}:
            raise UsageError(f"{folder} is not empty and holds no {MANIFEST}; name a new folder")
        write_text(path, json.dumps(wanted, indent=1))
        return
    found = read_json(path)
    found["fingerprint"] = {
        **found.get("fingerprint", {}),
        "name": manifest.fingerprint.name,
    }  # it may have moved
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        there = "; ".join(f"{name}: {_short(found.get(name))} there" for name in differing)
        here = "; ".join(f"{name}: {_short(wanted[name])} here" for name in differing)
        raise ArtifactError(f"{folder} holds another job ({there}; {here}); name a new folder")


def encode_shard(shard: Shard, encode: Encode, folder: Path, reading: dict[str, str]) -> int:
    """Encode a shard's rows and write its part; return how many there were.

    Raises:
        DataError: the file has fewer rows than when the job was planned.
        ResourceError: the disk is full or read-only.
    """
    rows = read_rows(shard.file, **reading)  # type: ignore[arg-type]
    mine = itertools.islice(rows, shard.first, shard.first + shard.rows)

    def batches() -> Iterator[tuple[list[IndexRow], np.ndarray]]:
        left = shard.rows
        while batch := list(itertools.islice(mine, ENCODE_ROWS)):
            left -= len(batch)
            yield batch, encode([row.text for row in batch])
        if left:
            raise DataError(f"{shard.file} has changed: {left:,} rows fewer than planned")

    return write_shard(folder / shard.part, batches())


def load_parts(
    index: VectorIndex,
    folder: Path,
    manifest: Manifest,
    observe: Callable[[int], None] = lambda rows: None,
) -> Commit:
    """Add all parts to an index, a commit each; called again it goes on behind the last one.

    Raises:
        ArtifactError: a part is damaged.
        ResourceError: the index cannot be written.
    """
    total, job = Commit(), sha256_file(folder / MANIFEST)
    for shard in manifest.shards:
        source = f"{job} {shard.part}"
        if source not in index.metadata.progress:
            for rows, vectors in read_shard(folder / shard.part):
                index.add(rows, vectors)
            total += index.commit(progress={source: shard.rows})
        observe(shard.rows)
    index.commit(progress=None)
    return total


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
