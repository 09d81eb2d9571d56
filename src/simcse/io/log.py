"""The log of a run: one JSON object a line, readable while it grows."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from simcse.errors import ArtifactError, ResourceError


def append_log(path: Path, event: Mapping[str, Any]) -> None:
    """Append one event, after removing a last line that a crash left incomplete.

    Raises:
        ResourceError: the file cannot be written.
    """
    try:
        with path.open("ab+") as log:
            _drop_incomplete_line(log)
            log.write(json.dumps(event, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror}") from error


def truncate_log(path: Path, size: int) -> None:
    """Truncate the log to its first ``size`` bytes, which a checkpoint has stored.

    Raises:
        ArtifactError: it is shorter.
        ResourceError: it cannot be written.
    """
    try:
        with path.open("ab") as log:
            if log.tell() < size:
                raise ArtifactError(f"{path} lacks lines that were written before the checkpoint")
            log.truncate(size)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror}") from error


def sync_log(path: Path) -> int:
    """Flush the log to the disk and return its size."""
    with path.open("rb") as log:
        os.fsync(log.fileno())
        return log.seek(0, os.SEEK_END)


def _drop_incomplete_line(log: BinaryIO) -> None:
    end = log.seek(0, os.SEEK_END)
    log.seek(max(0, end - 1))
    if log.read(1) not in (b"", b"\n"):
        log.seek(0)
        log.truncate(log.read().rfind(b"\n") + 1)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the events of a run, without a last line that a crash left incomplete.

    Raises:
        ArtifactError: the log is missing or another line is not JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not text: {error}") from error
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise ArtifactError(f"{path}:{number}: not a JSON line: {error}") from error
    return events
