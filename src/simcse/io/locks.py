"""One process at a time in a folder: a lock that the system takes back when its holder dies."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from simcse.errors import ResourceError

LOCK = ".lock"
TRAINING = "{folder} is locked: {holder} is training there"
AGAIN = 0.02  # seconds between two tries


@contextlib.contextmanager
def lock_folder(folder: Path, *, wait: float = 0.0, busy: str = TRAINING) -> Iterator[None]:
    """Make ``folder`` and hold it for this process alone, until the block ends or we are killed.

    Args:
        folder: what is locked.
        wait: seconds to wait for another process.
        busy: said when it still holds the lock; ``{folder}`` and ``{holder}`` are filled in.

    Raises:
        ResourceError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror}") from error
    try:
        _take(descriptor, folder, time.monotonic() + wait, busy)
        with contextlib.suppress(OSError):  # a full disk: the holder goes unnamed
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def _take(descriptor: int, folder: Path, until: float, busy: str) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
                raise ResourceError(busy.format(folder=folder, holder=holder)) from error
        except OSError as error:
            raise ResourceError(f"cannot lock {folder}: {error.strerror}") from error
        time.sleep(AGAIN)
