"""Writers of an index that are killed at a step of a transaction: a statement or an fsync."""

import os
import signal
import sqlite3

import numpy as np

from commands import FORKS
from simcse.index.sqlite import SqliteIndex
from simcse.io.rows import IndexRow

CONNECT, FSYNC = sqlite3.connect, os.fsync


def run_and_die(folder, action, after):
    """Run an action on an index in a process that is killed before its step number ``after``.

    Returns the exit code, 0 where the action ended before that step.
    """
    process = FORKS.Process(target=_run, args=(str(folder), action, after))
    process.start()
    try:
        process.join(600)
        assert process.exitcode is not None
        return process.exitcode
    finally:
        process.kill()


def counting(step):
    """Return substitutes for `sqlite3.connect` and `os.fsync`.

    They call ``step`` before each statement and fsync with the error of a full disk there.
    """
    statement = sqlite3.OperationalError("database or disk is full")

    class Connection(sqlite3.Connection):
        def execute(self, *arguments):
            step(statement)
            return super().execute(*arguments)

        def executemany(self, *arguments):
            step(statement)
            return super().executemany(*arguments)

    def fsync(descriptor):
        step(OSError(28, "No space left on device"))
        FSYNC(descriptor)

    return lambda *given, **options: CONNECT(*given, **options, factory=Connection), fsync


def _run(folder, action, after):
    index = SqliteIndex.open(folder)
    left = after

    def step(_):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlite3.connect, os.fsync = counting(step)
    if action == "add":
        index.add([IndexRow("new", "new", {"even": True})], np.ones((1, 8), np.float32))
        index.commit()
    elif action == "replace":
        index.add([IndexRow("7", "new", {"even": True})], np.ones((1, 8), np.float32))
        index.remove(["8"])
        index.commit()
    elif action == "compact":
        index.rebuild(compact=True)
    elif action == "restore":
        from simcse.index.sqlite_backup import copy_index

        copy_index(index.folder.parent / "backup", index.folder)
    os._exit(0)
