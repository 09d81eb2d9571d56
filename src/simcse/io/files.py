"""Atomic writing, reading by lines, and the treatment of control characters."""

import contextlib
import glob
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from simcse.errors import DataError, ResourceError, UsageError
from simcse.io.locks import lock_open_file

MAX_LINE_BYTES = 1 << 20  # a longer line is most likely not text
BadLines = Literal["error", "skip"]

# Every control character (Unicode category Cc) but U+0085, which is a line separator and stays
# inside the sentence as U+2028 and U+2029 do.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x84\x86-\x9f]")


def clean_text(text: str) -> str:
    r"""Replace each control character (NUL, tab, CR, LF, ...) by a space and strip the ends.

    Training, encoding, evaluation and serving all call this function, so that the same text is the
    same input everywhere.

    Example:
        >>> clean_text("two\x00words\n")
        'two words'
    """
    return (text if text.isprintable() else _CONTROL.sub(" ", text)).strip()


@dataclass
class ReadCounts:
    """Number of rows read, of blank lines and of bad lines skipped."""

    rows: int = 0
    blank: int = 0
    skipped: int = 0
    header: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.blank:,} blank, {self.skipped:,} bad lines skipped"


@dataclass(frozen=True)
class Source:
    """A file being read: its path, the treatment of bad lines, and the counts so far."""

    path: Path
    bad_lines: BadLines = "error"
    counts: ReadCounts = field(default_factory=ReadCounts)

    def __post_init__(self) -> None:
        if self.bad_lines not in ("error", "skip"):
            raise UsageError(f"bad_lines must be 'error' or 'skip', found {self.bad_lines!r}")

    def __str__(self) -> str:
        return "<stdin>" if str(self.path) == "-" else str(self.path)

    def refuse(self, where: int | str, problem: str) -> None:
        """Count a bad line as skipped, or raise if bad lines are errors.

        Raises:
            DataError: ``bad_lines`` is ``"error"``; the message starts with ``file:line``.
        """
        if self.bad_lines == "error":
            raise DataError(f"{self}:{where}: {problem}")
        self.counts.skipped += 1


def file_format(path: Path) -> str:
    """Return the format in a file's name: ``txt`` for ``a.txt``, ``a.TXT.gz`` and ``-``."""
    if str(path) == "-":
        return "txt"
    name = path.name.lower().removesuffix(".gz")
    return name.rpartition(".")[2] if "." in name else ""


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or ``.gz`` file, or standard input for ``-``, to read bytes.

    Raises:
        DataError: the file is missing, a folder, not permitted, or its gzip data is damaged.
    """
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        with path.open("rb") as stored:
            yield from _unpacked(path, stored) if path.suffix.lower() == ".gz" else [stored]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _unpacked(path: Path, stored: BinaryIO) -> Iterator[BinaryIO]:
    try:
        with gzip.GzipFile(fileobj=stored) as unpacked:
            yield cast(BinaryIO, io.BufferedReader(unpacked))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f"at byte {stored.tell():,} of {path.stat().st_size:,}"
        raise DataError(f"{path}: damaged or truncated gzip {where}: {error}") from error


def read_lines(source: Source) -> Iterator[tuple[int, str | None]]:
    r"""Yield every line's number and text; the text of a skipped bad line is ``None``.

    A line ends only at LF: U+2028, U+2029 and U+0085 belong to their sentence. A byte order mark
    and CRLF are stripped, blank lines are yielded, and one line at a time is in memory.

    Raises:
        DataError: a line is not UTF-8 (``file:line:byte``, counted from 1) or longer than
            `MAX_LINE_BYTES`, with ``bad_lines="error"``; or the file cannot be read.
    """
    with open_bytes(source.path) as stream:
        for number, raw in enumerate(_raw_lines(stream), start=1):
            yield number, _decode(raw, number, source)


def read_json_lines(source: Source) -> Iterator[tuple[int, Any]]:
    """Yield the line number and value of each line of JSON; blank lines are counted.

    Raises:
        DataError: a line is not JSON or holds a lone surrogate, with ``bad_lines="error"``.
    """
    for number, line in read_lines(source):
        if line is None:
            continue
        if not clean_text(line):
            source.counts.blank += 1
            continue
        try:
            value = json.loads(line)
            if "\\u" in line:  # only an escape can encode a lone surrogate
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            source.refuse(number, f"not JSON text: {error}")
        else:
            yield number, value


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as stored, in hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            for block in iter(partial(stream.read, 1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def _raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines of at most one byte over the limit; the rest of a longer line is skipped."""
    limit = MAX_LINE_BYTES + 1
    for raw in iter(partial(stream.readline, limit), b""):
        yield raw
        while len(raw) == limit and not raw.endswith(b"\n"):
            raw = stream.readline(limit)


def _decode(raw: bytes, number: int, source: Source) -> str | None:
    if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
        source.refuse(number, f"expected at most {MAX_LINE_BYTES:,} bytes in a line, found more")
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        source.refuse(
            f"{number}:{error.start + 1}",
            f"expected UTF-8, found the byte 0x{raw[error.start]:02x} ({error.reason}). "
            f"Convert the file, maybe by `iconv -f {_guess_encoding(raw)} -t UTF-8`",
        )
        return None
    text = text.rstrip("\r\n")
    return text.removeprefix("\ufeff") if number == 1 else text


def _guess_encoding(raw: bytes) -> str:
    """Name the likeliest encoding of a line that is not UTF-8."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):  # the byte order mark
        return "UTF-16"
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return "Windows-1252"
    ideographs = sum("\u4e00" <= letter <= "\u9fff" for letter in text)
    return "GB18030" if ideographs > 1 else "Windows-1252"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success fsync it and rename it to ``path``.

    On an error the temporary file is removed and ``path`` is unchanged. Temporary files that
    killed writers of the same ``path`` left are removed, too.

    Raises:
        ResourceError: the disk is full, read-only or the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_dead(path)
        temporary, lock = _temporary_file(path)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with LF, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def fsync(path: Path) -> None:
    """Bring a file or folder to the disk; not a folder on Windows, which cannot open one."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_file(path: Path) -> tuple[Path, int | None]:
    """Make a file beside ``path``, locked until its descriptor, if there is one, is closed."""
    while True:
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=f".new{path.suffix}"
        )
        locked = lock_open_file(descriptor)
        if locked and os.fstat(descriptor).st_nlink:
            return Path(name), descriptor
        os.close(descriptor)
        if not locked:  # nobody clears here, and Windows does not rename open files
            return Path(name), None


def _clear_dead(path: Path) -> None:
    """Remove the temporary files of killed writers of ``path``: nobody holds their locks."""
    name, suffix = glob.escape(path.name), glob.escape(path.suffix)
    for left in path.parent.glob(f".{name}.????????.new{suffix}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(left, os.O_RDWR)
            try:
                if lock_open_file(descriptor, wait=False):
                    left.unlink()
            finally:
                os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
