"""The data sets this project knows: where they are, how many rows, which bytes."""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

from simcse.errors import DataError, UsageError
from simcse.io.examples import csv_rows
from simcse.io.files import Source, clean_text, file_format, read_lines, sha256_file
from simcse.io.sts import StsTask, join_sts, read_sts
from simcse.io.transfer import LabeledSentences, TransferTask, read_labeled

Text = Literal["natural", "senteval"]
Content = TypeVar("Content", StsTask, LabeledSentences)
State = Literal["present", "missing", "wrong rows", "wrong hash", "unreadable"]

STS_FOLDERS: Mapping[str, str] = MappingProxyType({"natural": "sts", "senteval": "sts_senteval"})
SICK_SPLITS = ("sickr-train", "sickr-dev", "sickr-test")
TRANSFER_FOLDERS: Mapping[str, str] = MappingProxyType(
    {"natural": "transfer", "senteval": "transfer_senteval"}
)
TRANSFER_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("mr", "cr", "subj", "mpqa"), ("all",)),
        "sst2": ("train", "dev", "test"),
        "trec": ("train", "test"),
        "mrpc": ("train", "test"),
    }
)
FETCH_HINT = "`simcse data fetch` downloads what is public; --data or SIMCSE_DATA names a folder"


@dataclass(frozen=True)
class KnownFile:
    """One file of a known data set.

    Attributes:
        path: below the data folder, for example ``sts/sts12.tsv``.
        rows: data rows, without a header.
        sha256: of the stored bytes; ``None`` where no copy was at hand to hash.
    """

    path: str
    rows: int
    sha256: str | None


@dataclass(frozen=True)
class FileStatus:
    """What was found of a known file, and in words what is wrong with it."""

    known: KnownFile
    state: State
    problem: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether the file is there and is not the known one."""
        return self.state not in ("present", "missing")


@cache
def known_files() -> Mapping[str, KnownFile]:
    """Return every known file by its path below the data folder (``datasets.tsv``, beside this)."""
    table = resources.files("simcse.io").joinpath("datasets.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in table.splitlines())
    return MappingProxyType(
        {path: KnownFile(path, int(n), None if sha == "-" else sha) for path, n, sha in rows}
    )


def cache_folder() -> Path:
    """Return ``simcse/data`` in the user's cache: ``XDG_CACHE_HOME``, or else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simcse" / "data"


def data_folder(folder: str | Path | None = None) -> Path:
    """Say where data is read: ``folder``, `shared_folder`, or `cache_folder`, which is written."""
    return Path(folder) if folder else shared_folder("data") or cache_folder()


def shared_folder(kind: Literal["data", "models"]) -> Path | None:
    """Return ``SIMCSE_DATA`` or ``SIMCSE_MODELS``, else a folder ``shared/data`` or the like.

    That is the one beside the project: ``../shared/data`` seen from the current folder or one
    above it. ``None``: the variable is not set, and no such folder is there.
    """
    if named := os.environ.get(f"SIMCSE_{kind.upper()}"):
        return Path(named)
    shared = (parent / "shared" / kind for parent in Path.cwd().parents)
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
    right number of rows but other bytes than the known ones is read, and `StsTask.notes` says so.

    Raises:
        UsageError: no such set or text.
        DataError: the file is missing, damaged or has another number of rows.
    """
    if text not in STS_FOLDERS:
        raise UsageError(f"text must be one of {', '.join(STS_FOLDERS)}, got {text!r}")
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
    with the right number of rows but other bytes is read, and `TransferTask.notes` says so.

    Raises:
        UsageError: no such task or text.
        DataError: a file is missing, damaged or has another number of rows.
    """
    if text not in TRANSFER_FOLDERS:
        raise UsageError(f"text must be one of {', '.join(TRANSFER_FOLDERS)}, got {text!r}")
    if name not in TRANSFER_PARTS:
        raise UsageError(f"unknown transfer task {name!r}; known: {', '.join(TRANSFER_PARTS)}")
    root = data_folder(folder) / TRANSFER_FOLDERS["natural" if name == "sst2" else text]
    parts: dict[str, LabeledSentences] = {}
    notes: tuple[str, ...] = ()
    for part in TRANSFER_PARTS[name]:
        path = root / (f"{name}.tsv" if part == "all" else f"{name}-{part}.tsv")
        parts[part] = _read(path, read_labeled)
        notes += _check(path, len(parts[part].labels), parts[part].sha256)
    return TransferTask(name, parts, notes)


def _load_known(path: Path) -> StsTask:
    task = _read(path, read_sts)
    return replace(task, notes=_check(path, len(task.scores), task.sha256))


def _read(path: Path, reader: Callable[[Path], Content]) -> Content:
    if not path.exists():
        raise DataError(f"no data set {path}; {FETCH_HINT}")
    return reader(path)


def _check(path: Path, rows: int, sha256: str) -> tuple[str, ...]:
    """Compare a file that was read with the known one; return what a reader must know of it.

    Raises:
        DataError: it has another number of rows.
    """
    known = known_files().get(f"{path.parent.name}/{path.name}")
    if known is None:
        return ()
    if rows != known.rows:
        raise DataError(f"{path}: expected {known.rows:,} rows, got {rows:,}")
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
        return FileStatus(known, "wrong rows", f"expected {known.rows:,}, got {rows:,}")
    if known.sha256:
        return FileStatus(known, "wrong hash", "the number of rows is right, the text is another")
    return FileStatus(known, "present")


def _count_rows(path: Path) -> int:
    """Count rows that are not blank; of a ``.csv``, whose first record is a header, one less."""
    source = Source(path)
    if file_format(path) == "csv":
        return sum(any(cells) for _, cells in csv_rows(source)) - 1
    return sum(bool(line and clean_text(line)) for _, line in read_lines(source))
