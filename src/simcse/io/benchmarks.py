"""The benchmarks this project knows: STS, transfer and retrieval sets, and where they are."""

import difflib
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

import numpy as np

from simcse.errors import DataError, UsageError
from simcse.io.files import Source, clean_text, file_format, read_lines, sha256_file
from simcse.io.formats import csv_rows

Text = Literal["natural", "senteval"]
Content = TypeVar("Content", "StsTask", "LabeledSentences")
State = Literal["present", "missing", "wrong rows", "wrong hash", "unreadable"]

STS_FOLDERS: Mapping[str, str] = MappingProxyType({"natural": "sts", "senteval": "sts_senteval"})
SICK_SPLITS = ("sickr-train", "sickr-dev", "sickr-test")
TRANSFER_FOLDERS: Mapping[str, str] = MappingProxyType(
    {"natural": "transfer", "senteval": "transfer_senteval"}
)
TRANSFER_SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("mr", "cr", "subj", "mpqa"), ("all",)),
        "sst2": ("train", "dev", "test"),
        "trec": ("train", "test"),
        "mrpc": ("train", "test"),
    }
)
RETRIEVAL_SETS: Mapping[str, str] = MappingProxyType(
    {"captions": "flickr30k_captions.tsv.gz", "quora": "quora_duplicates.tsv.gz"}
)
FETCH_HINT = "`simcse data fetch` downloads what is public; --data or SIMCSE_DATA names a folder"


@dataclass(frozen=True, eq=False)
class StsTask:
    """N rated pairs of one STS set."""

    name: str  # for example sts12 or stsb-test
    subsets: tuple[str, ...]  # (N,) each pair's subset, for the aggregations mean and wmean
    scores: np.ndarray  # (N,) float64 ratings: 0 to 5, SICK 1 to 5
    first: tuple[str, ...]  # (N,) first sentences
    second: tuple[str, ...]  # (N,) second sentences
    path: Path  # the file read; the folder, if several files were joined
    sha256: str  # of the file's bytes; of the files' digests in order, if several were joined
    # Warnings for readers of the results, such as a text not known to the project.
    notes: tuple[str, ...] = ()


def read_sts(path: str | Path, *, name: str = "") -> StsTask:
    """Read ``subset, score, sentence1, sentence2[, label]``: tab-separated, no header, no quotes.

    The task is called after the file unless ``name`` is given.

    Raises:
        DataError: a row has other columns, an empty sentence or a score that is not a finite
            number (``file:line``); the file cannot be read or has no rows.
    """
    source = Source(Path(path))
    rows = [_scored_pair(cells, f"{source}:{number}") for number, cells in _cells(source)]
    subsets, scores, first, second = zip(*rows, strict=True)
    name = name or source.path.name.partition(".")[0]
    digest = sha256_file(source.path)
    return StsTask(name, subsets, np.array(scores), first, second, source.path, digest)


def join_sts(name: str, tasks: Sequence[StsTask]) -> StsTask:
    """Put the pairs of several tasks, from files of one folder, one after another."""
    digests = "".join(task.sha256 for task in tasks)
    return StsTask(
        name,
        subsets=tuple(subset for task in tasks for subset in task.subsets),
        scores=np.concatenate([task.scores for task in tasks]),
        first=tuple(sentence for task in tasks for sentence in task.first),
        second=tuple(sentence for task in tasks for sentence in task.second),
        path=tasks[0].path.parent,
        sha256=hashlib.sha256(digests.encode()).hexdigest(),
        notes=tuple(note for task in tasks for note in task.notes),
    )


def _scored_pair(cells: list[str], where: str) -> tuple[str, float, str, str]:
    if len(cells) not in (4, 5):
        expected = "4 or 5 columns (subset, score, sentence1, sentence2[, label])"
        raise DataError(f"{where}: expected {expected}, found {len(cells)}")
    subset, rating, first, second = cells[:4]
    try:
        score = float(rating)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"{where}: expected a finite number as score, found {rating!r}")
    if not (subset and first and second):
        raise DataError(f"{where}: the subset or a sentence is empty")
    return subset, score, first, second


@dataclass(frozen=True, eq=False)
class LabeledSentences:
    """N examples of one file, in its order."""

    labels: tuple[str, ...]  # (N,) as written: 0 and 1, or TREC's ABBR ... NUM
    first: tuple[str, ...]  # (N,) sentences
    second: tuple[str, ...]  # (N,) the other sentence of each pair; empty where a task has no pairs
    path: Path  # the file read
    sha256: str  # of the file's bytes

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The sentence or two sentences of each example: one or two tuples (N,)."""
        return (self.first, self.second) if self.second else (self.first,)


@dataclass(frozen=True, eq=False)
class TransferTask:
    """One transfer task."""

    name: str  # for example mr
    # All for a task that is cross-validated, else train, test and, for SST-2, dev.
    splits: Mapping[str, LabeledSentences]
    notes: tuple[str, ...] = ()  # warnings for readers of the results

    @property
    def sentences(self) -> Sequence[str]:
        """Every sentence of every split."""
        return [text for split in self.splits.values() for side in split.texts for text in side]


def read_labeled(path: str | Path) -> LabeledSentences:
    """Read ``label, sentence`` or ``label, sentence1, sentence2``: tab-separated, no header.

    Raises:
        DataError: a row has other columns than the first or an empty cell (``file:line``); the
            file cannot be read or has no rows.
    """
    source = Source(Path(path))
    rows: list[list[str]] = []
    for number, cells in _cells(source):
        width = len(rows[0]) if rows else len(cells)
        if width not in (2, 3) or len(cells) != width or not all(cells):
            expected = f"{width} columns" if rows else "label, sentence[, sentence2]"
            raise DataError(f"{source}:{number}: expected {expected}, none empty, found {cells}")
        rows.append(cells)
    labels, first, *second = zip(*rows, strict=True)
    digest = sha256_file(source.path)
    return LabeledSentences(labels, first, second[0] if second else (), source.path, digest)


@dataclass(frozen=True)
class KnownFile:
    """One file of a known data set."""

    path: str  # below the data folder, for example sts/sts12.tsv
    rows: int  # data rows, without a header
    sha256: str | None  # of the stored bytes; None if there was no copy to hash


@dataclass(frozen=True)
class FileStatus:
    """The state of a known file, and in words what is wrong with it."""

    known: KnownFile
    state: State
    problem: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether the file is there and is not the known one."""
        return self.state not in ("present", "missing")


@cache
def known_files() -> Mapping[str, KnownFile]:
    """Return every known file by its path below the data folder, from ``datasets.tsv``."""
    table = resources.files("simcse.io").joinpath("datasets.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in table.splitlines())
    return MappingProxyType(
        {path: KnownFile(path, int(n), None if sha == "-" else sha) for path, n, sha in rows}
    )


def cache_folder() -> Path:
    """Return ``simcse/data`` in the user's cache: ``XDG_CACHE_HOME``, or else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simcse" / "data"


def data_folder(folder: str | Path | None = None) -> Path:
    """Return the folder to read data from: ``folder``, `shared_folder` or `cache_folder`."""
    return Path(folder) if folder else shared_folder("data") or cache_folder()


def shared_folder(name: Literal["data", "models"]) -> Path | None:
    """Return ``SIMCSE_DATA`` or ``SIMCSE_MODELS``, or else the nearest ``../shared/NAME``.

    Every folder above the current one is searched. Without the variable and such a folder the
    result is ``None``.
    """
    if from_environment := os.environ.get(f"SIMCSE_{name.upper()}"):
        return Path(from_environment)
    shared = (parent / "shared" / name for parent in Path.cwd().parents)
    return next((path for path in shared if path.is_dir()), None)


def check_datasets(folder: Path) -> list[FileStatus]:
    """Compare the files in ``folder`` with the known ones by hash and, failing that, by rows."""
    return [_status(folder / known.path, known) for known in known_files().values()]


def load_sts_task(
    name: str, *, text: Text = "natural", folder: str | Path | None = None
) -> StsTask:
    """Read one STS set: ``sts12`` to ``sts16``, ``stsb-dev``, ``sickr-test``, ``sickr-all``, ...

    ``text`` is ``natural`` or ``senteval``, the tokenized text the paper fed its encoder.
    ``sickr-all`` is all 9,927 pairs (train, dev, test), what MTEB calls SICK-R. A file with the
    right number of rows but other bytes than the known ones gets a note in `StsTask.notes`.

    Raises:
        UsageError: no such set or text.
        DataError: the file is missing, damaged or has another number of rows.
    """
    if text not in STS_FOLDERS:
        raise UsageError(f"text must be one of {', '.join(STS_FOLDERS)}, found {text!r}")
    names = [Path(path).stem for path in known_files() if path.startswith("sts/")]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
        raise UsageError(f"unknown STS set {name!r}; {hint}")
    root = data_folder(folder) / STS_FOLDERS[text]
    if name == "sickr-all" and not (root / "sickr-all.tsv").exists():
        return join_sts(name, [_load_known(root / f"{split}.tsv") for split in SICK_SPLITS])
    return _load_known(root / f"{name}.tsv")


def load_transfer_task(
    name: str, *, text: Text = "senteval", folder: str | Path | None = None
) -> TransferTask:
    """Read one transfer task: ``mr``, ``cr``, ``subj``, ``mpqa``, ``sst2``, ``trec``, ``mrpc``.

    ``text`` is ``senteval``, the tokenized text, or ``natural``; SST-2 has one version. A file
    with the right number of rows but other bytes gets a note in `TransferTask.notes`.

    Raises:
        UsageError: no such task or text.
        DataError: a file is missing, damaged or has another number of rows.
    """
    if text not in TRANSFER_FOLDERS:
        raise UsageError(f"text must be one of {', '.join(TRANSFER_FOLDERS)}, found {text!r}")
    if name not in TRANSFER_SPLITS:
        raise UsageError(f"unknown transfer task {name!r}; known: {', '.join(TRANSFER_SPLITS)}")
    root = data_folder(folder) / TRANSFER_FOLDERS["natural" if name == "sst2" else text]
    splits: dict[str, LabeledSentences] = {}
    notes: tuple[str, ...] = ()
    for split in TRANSFER_SPLITS[name]:
        path = root / (f"{name}.tsv" if split == "all" else f"{name}-{split}.tsv")
        splits[split] = _read(path, read_labeled)
        notes += _check(path, len(splits[split].labels), splits[split].sha256)
    return TransferTask(name, splits, notes)


def retrieval_file(name: str, folder: str | Path | None = None) -> Path:
    """Return the file of one of `RETRIEVAL_SETS`, whose rows are pairs without a header."""
    return data_folder(folder) / "pairs" / RETRIEVAL_SETS[name]


def _cells(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each row that is not blank; there is at least one."""
    empty = True
    for number, line in read_lines(source):
        if line and clean_text(line):
            empty = False
            yield number, [clean_text(cell) for cell in line.split("\t")]
    if empty:
        raise DataError(f"{source}: no usable rows")


def _load_known(path: Path) -> StsTask:
    task = _read(path, read_sts)
    return replace(task, notes=_check(path, len(task.scores), task.sha256))


def _read(path: Path, reader: Callable[[Path], Content]) -> Content:
    if not path.exists():
        raise DataError(f"no data set {path}; {FETCH_HINT}")
    return reader(path)


def _check(path: Path, rows: int, sha256: str) -> tuple[str, ...]:
    """Compare a file with the known one; return a note if its bytes differ."""
    known = known_files().get(f"{path.parent.name}/{path.name}")
    if known is None:
        return ()
    if rows != known.rows:
        raise DataError(f"{path}: expected {known.rows:,} rows, found {rows:,}")
    if known.sha256 in (None, sha256):
        return ()
    return (f"{path} has the right rows but not the known SHA-256",)


def _status(path: Path, known: KnownFile) -> FileStatus:
    if not path.exists():
        return FileStatus(known, "missing")
    try:
        if known.sha256 == sha256_file(path):
            return FileStatus(known, "present")
        rows = _count_rows(path)
    except DataError as error:
        return FileStatus(known, "unreadable", str(error))
    if rows != known.rows:
        return FileStatus(known, "wrong rows", f"expected {known.rows:,}, found {rows:,}")
    if known.sha256:
        return FileStatus(known, "wrong hash", "the number of rows is right, but the text differs")
    return FileStatus(known, "present")


def _count_rows(path: Path) -> int:
    """Count rows that are not blank; of a ``.csv``, whose first record is a header, one less."""
    source = Source(path)
    if file_format(path) == "csv":
        return sum(any(cells) for _, cells in csv_rows(source)) - 1
    return sum(bool(line and clean_text(line)) for _, line in read_lines(source))
