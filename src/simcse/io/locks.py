"""Locks between processes, which the operating system releases when their holder dies."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from simcse.errors import ResourceError

LOCK = ".lock"
TRAINING = "{folder} is locked: {holder} is training there"
POLL_SECONDS = 0.02


@contextlib.contextmanager
def lock_folder(folder: Path, *, wait: float = 0.0, busy: str = TRAINING) -> Iterator[None]:
    """Make ``folder`` and lock it for this process, until the block ends or the process dies.

    Args:
        folder: what is locked.
        wait: seconds to wait for another process.
        busy: message if it still holds the lock, with the fields ``{folder}`` and ``{holder}``.

    Raises:
        ResourceError: another process holds it, or it cannot be written.
    """
    path = folder / LOCK
    lock = filelock.FileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait, poll_interval=POLL_SECONDS)
    except filelock.Timeout as error:
        raise ResourceError(busy.format(folder=folder, holder=_holder(path))) from error
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror}") from error
    try:
        if filelock.has_fcntl:  # elsewhere nobody can write into a file that is locked
            with contextlib.suppress(OSError):  # a full disk: the holder goes unnamed
                path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()


def lock_open_file(descriptor: int, *, wait: bool = True) -> bool:
    """Lock an open file or folder until it is closed; return whether this process holds the lock.

    False also where there are no such locks: on Windows, where one would keep others from writing,
    and for folders on NFS.
    """
    if not filelock.has_fcntl:
        return False
    try:
        return filelock.lock_descriptor(descriptor, blocking=wait)
    except OSError:
        return False


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace") or "another process"
    return "another process"
