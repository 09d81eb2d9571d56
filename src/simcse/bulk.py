"""Encoding of large inputs: into one file, or into a folder of Parquet shards.

A folder holds ``manifest.json``, which is written first, and a file for each shard that is done. A
shard appears when it is complete, and encoding it again gives the same file. So a killed process
loses and doubles nothing, and either engine continues where the other one stopped.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simcse.errors import (
    ArtifactError,
    DataError,
    ResourceError,
    SimcseError,
    TruncationWarning,
    UsageError,
)
from simcse.index.protocol import Commit, VectorIndex
from simcse.io.checkpoints import read_json
from simcse.io.files import BadLines, ReadCounts, sha256_file, write_text
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.locks import LOCK, lock_folder
from simcse.io.parquet_shards import read_shard, write_shard
from simcse.io.records import Note, read_index_rows, read_texts
from simcse.io.rows import IndexRow
from simcse.io.vectors import vector_writer
from simcse.model.encoder import SentenceEncoder
from simcse.model.fingerprint import model_fingerprint
from simcse.text import Truncation

MANIFEST = "manifest.json"
SHARD_ROWS = 50_000  # about a minute of work, and 80 MB of vectors of 384 dimensions
CHUNK_ROWS = 4096  # encoded and written together
BUSY = "{folder} is locked: {holder} is encoding into it"
Engine = Literal["local", "ray"]
Encode = Callable[[Sequence[str]], np.ndarray]
Progress = Callable[[int], None]  # receives the number of rows that were done


@dataclass(frozen=True)
class Reading:
    """How input files are read."""

    columns: str = ""  # of text and id, by name or position; empty finds them
    bad_lines: BadLines = "error"  # error stops at a line that cannot be used, skip counts it

    def rows(
        self, path: str | Path, counts: ReadCounts | None = None, note: Note | None = None
    ) -> Iterator[IndexRow]:
        """Stream a file's rows with their ids and metadata."""
        columns, bad_lines = self.columns, self.bad_lines
        return read_index_rows(path, columns=columns, bad_lines=bad_lines, counts=counts, note=note)

    def texts(
        self, paths: Sequence[str], counts: ReadCounts, note: Note | None = None
    ) -> Iterator[str]:
        """Stream the texts of several files; an unusable first file fails before the first text."""
        columns, bad_lines = self.columns, self.bad_lines
        streams = (
            read_texts(path, columns=columns, bad_lines=bad_lines, counts=counts, note=note)
            for path in paths
        )
        return itertools.chain(next(streams), itertools.chain.from_iterable(streams))


@dataclass(frozen=True)
class ModelSpec:
    """How to load a model and encode with it; plain values, so that workers can receive them."""

    name: str  # a folder that every worker can read, a bundled name or a hub id
    device: str | None  # where it runs; None chooses
    precision: Literal["fp32", "bf16", "int8"]  # number format, the same in all workers
    changes: Mapping[str, Any]  # settings in place of the model's own
    truncation: Truncation  # treatment of texts over the length limit
    dimensions: int | None  # length of the embeddings; None for all

    @classmethod
    def of(
        cls,
        encoder: SentenceEncoder,
        name: str,
        loading: Mapping[str, Any],
        truncation: Truncation,
        dimensions: int | None,
    ) -> "ModelSpec":
        """Describe an encoder that was loaded by ``name`` and the options ``loading``."""
        folder = Path(name).expanduser()
        changes = {key: loading.get(key) for key in ("pooling", "max_length")}
        return cls(
            str(folder.resolve()) if folder.is_dir() else name,
            loading.get("device"),
            encoder.backbone.precision,
            {key: value for key, value in changes.items() if value is not None},
            truncation,
            dimensions,
        )

    def load(self) -> SentenceEncoder:
        """Load the model."""
        return SentenceEncoder.load(
            self.name, device=self.device, precision=self.precision, changes=self.changes
        )

    def encode(self, encoder: SentenceEncoder, texts: Sequence[str]) -> np.ndarray:
        """Encode texts -> (N, D); the caller reports truncations once, by the encoder's count."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            return encoder.encode(texts, truncation=self.truncation, dimensions=self.dimensions)


@dataclass(frozen=True)
class Shard:
    """Some rows of an input file."""

    file: str  # absolute path
    sha256: str  # of the file
    first: int  # number of the file's rows before this shard
    rows: int  # number of rows
    name: str  # of the Parquet file that receives the rows and vectors


@dataclass(frozen=True)
class EncodeJob:
    """Everything that determines the contents of a folder of shards."""

    fingerprint: ModelFingerprint
    precision: str
    truncation: Truncation
    dimensions: int | None
    reading: Reading
    shards: tuple[Shard, ...]  # in the order of the rows


def encode_to_file(
    texts: Iterable[str], output: Path, encode: Encode, progress: Progress = lambda rows: None
) -> None:
    """Encode texts into a ``.npy``, ``.safetensors`` or ``.parquet`` file in constant memory.

    Raises:
        UsageError: the name has another ending.
        DataError: a text cannot be encoded.
        ResourceError: the disk is full or read-only.
    """
    stream = iter(texts)
    with vector_writer(output) as append:
        while chunk := list(itertools.islice(stream, CHUNK_ROWS)):
            append(chunk, encode(chunk))
            progress(len(chunk))


def encode_to_folder(
    folder: Path,
    shards: Sequence[Shard],
    reading: Reading,
    spec: ModelSpec,
    encoder: SentenceEncoder,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    progress: Progress = lambda rows: None,
) -> int:
    """Encode the shards that are missing in a folder; return the number of truncated texts.

    Args:
        folder: on a cluster, one that all machines share.
        shards: all shards of the folder.
        reading: how the files are read.
        spec: the model, for workers.
        encoder: the same model, for this process.
        engine: ``local`` is this process, ``ray`` a Ray cluster or several processes here.
        workers: of Ray; by default one per processor core of the cluster.
        progress: receives the rows of each shard that is done.

    Raises:
        UsageError: the folder holds something else.
        ArtifactError: the folder holds another job.
        DataError: a text is too long, or a file has changed.
        ResourceError: the disk is full, another process writes there, or Ray is not installed.
    """
    fingerprint, truncated = model_fingerprint(encoder, spec.name), 0
    options = (spec.precision, spec.truncation, spec.dimensions)
    with lock_folder(folder, busy=BUSY):
        resume_or_create(folder, EncodeJob(fingerprint, *options, reading, tuple(shards)))
        missing = [shard for shard in shards if not (folder / shard.name).exists()]
        progress(sum(shard.rows for shard in shards) - sum(shard.rows for shard in missing))
        if engine == "ray" and missing:
            results = _encode_on_ray(missing, folder, reading, spec, workers)
        else:
            encode_one = ShardEncoder(folder, reading, spec, encoder)
            results = (encode_one(dataclasses.asdict(shard)) for shard in missing)
        for result in results:
            progress(result["rows"])
            truncated += result["truncated"]
    return truncated


def plan_shards(
    files: Sequence[str | Path],
    rows: int,
    reading: Reading,
    counts: ReadCounts,
    note: Note | None = None,
) -> tuple[Shard, ...]:
    """Divide files into shards of at most ``rows`` rows, which reads each file once.

    Raises:
        UsageError: a file is standard input, which cannot be read again.
        DataError: a file is missing or has a bad row, or there are no rows.
    """
    shards: list[Shard] = []
    for path in map(Path, files):
        if str(path) == "-":
            raise UsageError("standard input cannot be read twice; write it to a file first")
        before = counts.rows
        for _ in reading.rows(path, counts, note):
            pass
        count = counts.rows - before
        checksum = sha256_file(path)
        for first in range(0, count, rows):
            name = f"shard-{len(shards):05d}.parquet"
            shards.append(
                Shard(str(path.resolve()), checksum, first, min(rows, count - first), name)
            )
    if not shards:
        raise DataError(f"no usable rows ({counts})")
    return tuple(shards)


def resume_or_create(folder: Path, job: EncodeJob) -> None:
    """Write the manifest into a new folder, or check that an earlier one has the same job.

    Raises:
        UsageError: the folder holds something else.
        ArtifactError: the folder holds another job; the message names the differences.
        ResourceError: the disk is full or read-only.
    """
    path, wanted = folder / MANIFEST, json.loads(json.dumps(dataclasses.asdict(job)))
    if not path.exists():
        if folder.exists() and {found.name for found in folder.iterdir()} - {LOCK}:
            raise UsageError(f"{folder} is not empty and has no {MANIFEST}; choose a new folder")
        write_text(path, json.dumps(wanted, indent=1))
        return
    found = read_json(path)
    with contextlib.suppress(KeyError, TypeError):  # the model's folder may have moved
        found["fingerprint"]["name"] = job.fingerprint.name
    differing = [
        f"{name} is {_shortened(found.get(name))} there and {_shortened(wanted[name])} here"
        for name in wanted
        if found.get(name) != wanted[name]
    ]
    if differing:
        differences = "; ".join(differing)
        raise ArtifactError(f"{folder} holds another job ({differences}); choose a new folder")


def index_shards(
    index: VectorIndex,
    folder: Path,
    shards: Sequence[Shard],
    progress: Progress = lambda rows: None,
) -> Commit:
    """Add all shards to an index, one commit each; a repeated call continues after the last one.

    Raises:
        ArtifactError: a shard is damaged.
        ResourceError: the index cannot be written.
    """
    total, job = Commit(), sha256_file(folder / MANIFEST)
    for shard in shards:
        source = f"{job} {shard.name}"
        if source not in index.metadata.progress:
            for rows, vectors in read_shard(folder / shard.name):
                index.add(rows, vectors)
            total += index.commit(progress={source: shard.rows})
        progress(shard.rows)
    index.commit(progress=None)
    return total


class ShardEncoder:
    """Encodes shards; on Ray each worker process makes one, which loads the model once."""

    def __init__(
        self,
        folder: Path,
        reading: Reading,
        spec: ModelSpec,
        encoder: SentenceEncoder | None = None,
    ) -> None:
        self.folder, self.reading, self.spec = folder, reading, spec
        self.encoder = encoder or spec.load()

    def __call__(self, shard: dict[str, Any]) -> dict[str, int]:
        """Encode a shard; return its number of rows, and of truncated texts."""
        before = self.encoder.tokenizer.truncated

        def encode(texts: Sequence[str]) -> np.ndarray:
            return self.spec.encode(self.encoder, texts)

        rows = encode_shard(Shard(**shard), encode, self.folder, self.reading)
        return {"rows": rows, "truncated": self.encoder.tokenizer.truncated - before}


def encode_shard(shard: Shard, encode: Encode, folder: Path, reading: Reading) -> int:
    """Encode a shard's rows into its Parquet file; return their number.

    Raises:
        DataError: the file has fewer rows than `plan_shards` found.
        ResourceError: the disk is full or read-only.
    """
    selected = itertools.islice(reading.rows(shard.file), shard.first, shard.first + shard.rows)

    def chunks() -> Iterator[tuple[list[IndexRow], np.ndarray]]:
        missing = shard.rows
        while chunk := list(itertools.islice(selected, CHUNK_ROWS)):
            missing -= len(chunk)
            yield chunk, encode([row.text for row in chunk])
        if missing:
            raise DataError(f"{shard.file} has changed: it has {missing:,} rows fewer than planned")

    return write_shard(folder / shard.name, chunks())


def _encode_on_ray(
    missing: Sequence[Shard],
    folder: Path,
    reading: Reading,
    spec: ModelSpec,
    workers: int | None,
) -> Iterator[dict[str, int]]:
    try:
        import ray
    except ImportError as error:
        message = "the engine ray needs an extra: pip install 'simcse-next[ray]'"
        raise ResourceError(message) from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a new cluster reports home
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Ray restarts a worker that dies and assigns its shard again. It does not repeat a shard that
    # failed by an error of the data, which ends the job.
    shards = ray.data.from_items(
        [dataclasses.asdict(shard) for shard in missing], override_num_blocks=len(missing)
    )
    results = shards.map(
        ShardEncoder,
        fn_constructor_args=(folder.resolve(), reading, spec),
        concurrency=min(count, len(missing)),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=-1,
    )
    try:
        yield from results.iter_rows()
    except ray.exceptions.RayError as error:
        raise _find_cause(error) from error


def _find_cause(error: BaseException) -> BaseException:
    """Return this package's error below Ray's, if there is one."""
    below = getattr(error, "cause", None) or error.__cause__
    if isinstance(below, SimcseError):
        return below
    return error if below is None else _find_cause(below)


def _shortened(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
