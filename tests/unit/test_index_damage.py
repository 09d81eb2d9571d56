"""Damaged files of an index in a folder: found by name, never laundered, never a traceback."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from simcse.errors import (
    ArtifactError,
    SimcseWarning,
)
from simcse.index.sqlite import SqliteIndex
from simcse.index.sqlite_backup import copy_index
from simcse.index.sqlite_schema import checksum
from stored_index import (
    FINGERPRINT,
    answers,
    closed,
    cut,
    file_of,
    flip,
    rows_of,
)


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", ["index.db", "vectors-000001.npy", "vectors-000002.npy"])
def test_x1_x2_damage_is_found_by_name(index, tmp_path, name, damage):
    folder = closed(index, tmp_path)
    damage(folder / name)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.") + r"|no index at") as caught:
        SqliteIndex.open(folder, verify=True)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_x1_x2_what_is_derived_is_made_again(index, damage):
    query = rows_of(7, 8)[1]
    expected = index.search(query, k=3)
    damage(file_of(index, "approximate-*.faiss"))
    assert [".faiss" in problem for problem in index.verify()] == [True]
    with pytest.warns(SimcseWarning, match=r"approximate-\d+\.faiss.*it is made again"):
        repaired = SqliteIndex.open(index.folder, verify=True)
    assert repaired.search(query, k=3) == expected
    assert repaired.verify() == []


def test_x1_a_structure_is_compared_before_faiss_reads_it(index):
    flip(file_of(index, "approximate-*.faiss"))
    with pytest.raises(ArtifactError, match=r"approximate.*damaged.*simcse index rebuild"):
        SqliteIndex.open(index.folder).search(rows_of(7, 8)[1])
    cut(file_of(index, "approximate-*.faiss"))
    with pytest.warns(SimcseWarning, match="made again"):  # a size is compared at once
        SqliteIndex.open(index.folder)


def test_x1_150_bit_flips_give_no_wrong_answer(index, tmp_path):
    folder = closed(index, tmp_path)
    expected = answers(SqliteIndex.open(folder))
    files = sorted(path for path in folder.iterdir() if path.name != ".lock")
    random, trial, silent = np.random.default_rng(0), tmp_path / "trial", 0
    for number in range(150):
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(folder, trial)
        path = trial / files[number % len(files)].name
        at = int(random.integers(path.stat().st_size))
        flip(path, at, 1 << int(random.integers(8)))
        try:
            opened = SqliteIndex.open(trial)
            found = answers(opened)
        except ArtifactError:
            continue
        problems = opened.verify()
        assert problems or found == expected, (path.name, at)  # else a wrong answer
        silent += not problems
        try:  # X20: nothing that is damaged gets a fresh checksum
            opened.rebuild(compact=True)
        except ArtifactError:
            continue
        assert opened.verify() == []
        assert answers(opened) == expected, (path.name, at)
    assert silent < 80  # unused bytes of pages of SQLite


def test_x20_a_bit_flipped_after_opening_is_found_by_the_next_commit(tmp_path):
    index = SqliteIndex.create(tmp_path / "index", FINGERPRINT)
    for at in range(3):
        index.add(*rows_of(at, at + 1))
        index.commit()
    flip(sorted(index.folder.glob("vectors-*.npy"))[-1], at=140)
    index.add(*rows_of(3, 6))  # merges the small chunks before it
    with pytest.raises(ArtifactError, match=r"vectors-\d+\.npy is damaged"):
        index.commit()
    for write in (index.rebuild, lambda: index.rebuild(compact=True)):
        with pytest.raises(ArtifactError, match=r"vectors-\d+\.npy is damaged"):
            write()
    assert any("npy is damaged" in problem for problem in index.verify())


def test_x20_a_chunk_that_a_commit_does_not_touch_keeps_its_checksum(index):
    flip(file_of(index, "vectors-000001.npy"))
    index.add(*rows_of(500, 501))
    index.commit()
    assert "vectors-000001.npy" in index.verify()[0]
    with pytest.raises(ArtifactError, match=r"vectors-000001\.npy is damaged"):
        SqliteIndex.open(index.folder, verify=True)


def execute(folder, statement, *values):
    connection = sqlite3.connect(folder / "index.db")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET text = 'other' WHERE id = '7'",
        "UPDATE rows SET metadata = '{}' WHERE id = '8'",
        "UPDATE rows SET id = 'other' WHERE id = '9'",
        "DELETE FROM rows WHERE id = '7'",
        "UPDATE rows SET position = 3 WHERE id = '7'",
        "UPDATE chunks SET rows = rows - 1",
        "UPDATE chunks SET live = NULL",
        "UPDATE info SET version = 77",
        "DELETE FROM info",
        "DELETE FROM metadata WHERE position = 8",
        "UPDATE metadata SET value = 1 - value WHERE position = 8",
        "UPDATE metadata SET position = 1000000 WHERE position = 8",
        "UPDATE metadata SET position = 'x' WHERE position = 8",
        "DROP TABLE rows",
    ],
)
def test_x21_a_changed_row_is_found_and_never_a_traceback(index, tmp_path, statement):
    folder = closed(index, tmp_path)
    expected = answers(SqliteIndex.open(folder))
    execute(folder, statement)
    try:
        opened = SqliteIndex.open(folder)
    except ArtifactError:
        return
    assert opened.verify()
    with contextlib.suppress(ArtifactError):
        answers(opened)
    try:
        opened.rebuild()
    except ArtifactError:
        return
    assert opened.verify() == []  # what is derived was made again
    assert answers(opened) == expected


def test_x18_links_and_names_that_lead_elsewhere_are_refused(index, tmp_path):
    folder = closed(index, tmp_path)
    secret = tmp_path / "elsewhere.npy"
    chunk = folder / "vectors-000001.npy"
    chunk.rename(secret)
    before = secret.read_bytes()
    for target in (secret, Path("..") / secret.name):
        chunk.symlink_to(target)
        with pytest.raises(ArtifactError, match="is a link"):
            SqliteIndex.open(folder)
        chunk.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        SqliteIndex.open(folder)
    secret.rename(chunk)
    for number in ("../x", "/etc/passwd", 0, True, None):
        copied = tmp_path / "again"
        shutil.rmtree(copied, ignore_errors=True)
        copy_index(folder, copied)
        view = SqliteIndex.open(copied)._view
        structure = {"number": number, "bytes": 1, "sha256": ""}
        text = json.dumps({**view.state, "structure": structure})
        crc = checksum(view.version, text)  # by somebody who knows how it is made
        execute(copied, "UPDATE info SET state = ?, crc = ?", text, crc)
        with pytest.raises(ArtifactError, match="expected a whole number"):
            SqliteIndex.open(copied)
    (folder / "index.db").rename(tmp_path / "index.db")
    (folder / "index.db").symlink_to(tmp_path / "index.db")
    with pytest.raises(ArtifactError, match="is a link"):
        SqliteIndex.open(folder)
    assert chunk.read_bytes() == before


def test_x19_an_unknown_format_is_refused_and_nothing_is_rewritten(index, tmp_path):
    folder = closed(index, tmp_path)
    execute(folder, "PRAGMA user_version = 7")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix}
    for write in (
        lambda: SqliteIndex.open(folder),
        lambda: SqliteIndex.open(folder, verify=True),
        lambda: copy_index(index.folder, folder),
        lambda: copy_index(folder, tmp_path / "another"),
    ):
        with pytest.raises(ArtifactError, match="expected an index of format 1, found format 7"):
            write()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix} == before
    (folder / "index.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ArtifactError, match=r"index\.db is damaged: file is not a database"):
        SqliteIndex.open(folder)
