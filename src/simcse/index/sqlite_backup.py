"""Copies of an index in a folder: a backup is itself an index, and restores one."""

import contextlib
import os
import sqlite3
from pathlib import Path

from simcse.errors import ArtifactError, ResourceError, UsageError
from simcse.index.chunks import file_number, remove_unknown, sync_folder, writing
from simcse.index.sqlite_schema import (
    DATABASE,
    NEW_DATABASE,
    connect,
    database_errors,
    database_files,
    open_new,
)
from simcse.index.sqlite_verify import derived_damage, row_damage
from simcse.index.sqlite_view import View, newest_version
from simcse.index.sqlite_writer import BUSY, LOCK_SECONDS, Writer
from simcse.io.locks import LOCK, lock_folder


def copy_index(source: Path, target: Path) -> None:
    """Make ``target`` what ``source`` is now, verified; searches and additions go on meanwhile.

    The rows are copied by SQLite's own backup. The chunks get names that are new in ``target``, so
    that its readers finish on what they have open. An index in ``target`` is replaced when the copy
    is complete, also where it is damaged.

    Raises:
        UsageError: ``target`` is ``source``, or something other than an index is in it.
        ArtifactError: something in ``source`` is damaged, or ``target`` has another format.
        ResourceError: the disk is full, or another process writes ``target``.
    """
    view = View.open(source)
    if problems := [*row_damage(view), *derived_damage(view)]:
        raise ArtifactError("\n".join(problems))
    _check_target(source, target)
    new = target / NEW_DATABASE
    with lock_folder(target, wait=LOCK_SECONDS, busy=BUSY):
        there = [path.name for path in target.iterdir()]
        version = max(view.version, _version_of(target)) + 1
        known = {name for name in there if file_number(name)}
        try:
            with writing(target), database_errors(new):
                with contextlib.closing(open_new(new)) as copy:
                    with view.lock:
                        view.connection.backup(copy)
                    writer = Writer(view, copy)
                    writer.folder = target
                    writer.state["next_number"] = 1 + max(map(file_number, there), default=0)
                    writer.copy_files()
                    copy.execute("BEGIN")
                    writer.write_commit(version)
                    copy.execute("COMMIT")
                known |= writer.file_names()  # if interrupted from here on, both may be needed
                _replace(new, target / DATABASE)
            known = writer.file_names()
        finally:
            for file in database_files(new):
                file.unlink(missing_ok=True)
            remove_unknown(target, known)


def _check_target(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        raise UsageError(f"{target} is the index itself; name another folder")
    if not target.exists():
        return
    databases = [*database_files(target / DATABASE), *database_files(target / NEW_DATABASE)]
    ours = {LOCK, *(file.name for file in databases)}
    if not target.is_dir() or any(
        path.name not in ours and not file_number(path.name) for path in target.iterdir()
    ):
        raise UsageError(f"{target} holds something other than an index; name a new folder")


def _version_of(folder: Path) -> int:
    """Return the number of the newest commit, 0 where there is none that can be read."""
    try:
        return newest_version(folder)
    except (ArtifactError, ResourceError) as error:
        if "expected an index of format" in str(error):
            raise
        return 0


def _replace(new: Path, path: Path) -> None:
    """Put a complete database in place of another one, whose readers stay with their commit."""
    if path.exists():
        try:
            with (
                contextlib.closing(connect(new)) as copy,
                contextlib.closing(connect(path, write=True)) as live,
            ):
                copy.backup(live)
            return
        except sqlite3.DatabaseError as error:
            if "full" in str(error) or "locked" in str(error):
                raise
            for file in database_files(path)[1:]:  # what is there is damaged: nobody can read it
                file.unlink(missing_ok=True)
    os.replace(new, path)
    sync_folder(path.parent)
