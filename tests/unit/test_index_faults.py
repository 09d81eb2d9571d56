"""Faults of an index in a folder: damage, kills, full disks, other writers, other models."""

import dataclasses
import json
import os
import signal
import subprocess
import threading

import numpy as np
import pytest

from dying import run_and_die
from simcse.errors import (
    ArtifactError,
    DataError,
    NumericError,
    ResourceError,
    UsageError,
)
from simcse.index import approximate, exact, sqlite_writer
from simcse.index.filters import Condition
from simcse.index.ingest import ingest
from simcse.index.sqlite import SqliteIndex
from simcse.index.sqlite_backup import copy_index
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.locks import lock_folder
from simcse.io.rows import IndexRow
from stored_index import (
    DIMENSIONS,
    EVEN,
    FINGERPRINT,
    answers,
    closed,
    cut,
    encode,
    file_of,
    flip,
    rows_of,
)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["add", "replace", "compact", "restore"])
def test_x3_a_kill_at_any_step_leaves_the_old_or_the_new(index, action):
    old = answers(index)
    if action == "restore":
        copy_index(index.folder, index.folder.parent / "backup")
        index.remove(["5"])
        index.commit()
        old = answers(index)
    kills, states, step = 0, [], 2 if action in ("add", "replace") else 3
    for after in range(0, 1000, step):
        code = run_and_die(index.folder, action, after)
        reopened = SqliteIndex.open(index.folder)
        assert reopened.verify() == []
        states.append(answers(reopened))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        if states[-1] != old:  # killed after the commit
            break
    assert kills >= 10
    assert all(state == old for state in states[:-1])
    assert len(reopened) == {"add": 120, "replace": 118, "compact": 119, "restore": 119}[action]
    reopened.add(*rows_of(500, 501))
    reopened.commit()  # removes what killed writers left
    there = {path.name for path in index.folder.iterdir() if path.suffix in (".npy", ".faiss")}
    assert there == {file.path.name for file in reopened._view.files()}


def test_x4_a_full_disk_leaves_the_old_and_what_is_staged(index, monkeypatch):
    index.add(*rows_of(200, 205))
    before = index.metadata.version
    names = sorted(path.name for path in index.folder.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(ResourceError, match="No space left") as caught:
            index.commit()
    assert caught.value.exit_code == 5
    assert SqliteIndex.open(index.folder).metadata.version == before
    assert sorted(path.name for path in index.folder.iterdir()) == names
    assert index.commit().added == 5


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB that can really be full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_x4_a_disk_that_is_really_full(small_disk, tmp_path):
    folder = small_disk / "index"
    index = SqliteIndex.create(folder, FINGERPRINT)
    index.add(*rows_of(0, 1000))
    index.commit()
    index.remove(["3"])
    index.commit()
    query = rows_of(7, 8)[1]
    expected = index.search(query, k=5)
    copy_index(folder, tmp_path / "copy")
    filler = small_disk / "filler"
    status = os.statvfs(small_disk)
    filler.write_bytes(bytes(status.f_bavail * status.f_frsize - 30_000))

    def add():
        index.add(*rows_of(2000, 3000))
        index.commit()

    for write in (
        add,
        lambda: index.rebuild(compact=True),
        lambda: copy_index(tmp_path / "copy", small_disk / "backup"),
        lambda: copy_index(tmp_path / "copy", folder),
    ):
        with pytest.raises(ResourceError, match="No space left on device"):
            write()
        reopened = SqliteIndex.open(folder)
        assert (len(reopened), reopened.search(query, k=5)) == (999, expected)
        assert reopened.verify() == []
    filler.unlink()
    assert index.commit().added == 1000  # what was staged stayed
    index.rebuild(compact=True)
    assert len(SqliteIndex.open(folder)) == 1999


def test_x5_a_second_writer_is_refused(index, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "LOCK_SECONDS", 0.05)
    index.add(*rows_of(200, 201))
    with lock_folder(index.folder):
        for write in (index.commit, index.rebuild, lambda: index.rebuild(compact=True)):
            with pytest.raises(ResourceError, match="another process is writing"):
                write()
    assert index.commit().added == 1


def test_two_writers_after_each_other_lose_nothing(index):
    other = SqliteIndex.open(index.folder)
    index.add(*rows_of(200, 203))
    other.add(*rows_of(202, 205))
    assert index.commit().added == 3
    assert dataclasses.astuple(other.commit()) == (2, 1, 0)
    assert index.refresh()
    assert not index.refresh()
    assert len(index) == len(other) == 124


def test_x6_another_models_index_is_refused_with_the_fix(index):
    other = ModelFingerprint("n", "e" * 64, DIMENSIONS, {"pooling": "cls", "max_length": 32})
    with pytest.raises(ArtifactError, match="pooling 'mean' there, 'cls' here.*index build NEW"):
        index.metadata.require_model(other)
    with pytest.raises(ArtifactError, match="other weights or another tokenizer"):
        index.metadata.require_model(dataclasses.replace(FINGERPRINT, sha256="e" * 64))
    index.metadata.require_model(dataclasses.replace(FINGERPRINT, name="the same, moved"))


@pytest.mark.parametrize("change", ["commit", "compact", "restore", "rebuild"])
def test_x12_readers_finish_on_the_commit_they_have(index, change, tmp_path):
    copy_index(index.folder, tmp_path / "backup")
    reader = SqliteIndex.open(index.folder)
    expected, stop, wrong = answers(reader), threading.Event(), []

    def read():
        while not stop.is_set():
            if answers(reader) != expected:
                wrong.append("another answer")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for at in range(300, 303):
            index.add(*rows_of(at, at + 1))
            index.commit()
            if change == "compact":
                index.rebuild(compact=True)
            elif change == "rebuild":
                index.rebuild(index_type="hnsw", recall=0.0)
            elif change == "restore":
                copy_index(tmp_path / "backup", index.folder)
                index.refresh()
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    assert len(reader) == 119
    assert reader.refresh()
    assert len(reader) == (119 if change == "restore" else 122)
    assert reader.verify() == []


def test_x13_a_recall_below_the_floor_fails_the_build(index):
    before = index.metadata.version
    rows = [IndexRow(str(at), "x") for at in range(3000)]
    vectors = np.random.default_rng(0).normal(size=(3000, DIMENSIONS))
    index.add(rows, 1 + vectors * 1e-4)  # neighbors that one bit a dimension cannot tell apart
    index.commit()
    with pytest.raises(NumericError, match=r"binary: recall@10 is 0\.\d+.*one with --recall"):
        index.rebuild(index_type="binary", recall=0.999)
    assert index.metadata.index_type == "int8"
    assert index.metadata.version == before + 1
    index.rebuild(index_type="binary", recall=0.0)
    assert index.metadata.approximation.recall < 0.999


def test_small_commits_do_not_make_many_chunks(tmp_path):
    index = SqliteIndex.create(tmp_path / "index", FINGERPRINT)
    for at in range(40):
        index.add(*rows_of(at, at + 1))
        index.commit()
    assert len(index) == 40
    assert index.metadata.read_storage()["chunks"] <= 6
    for _ in range(20):
        index.add(*rows_of(0, 1))
        index.commit()
    assert index.metadata.read_storage()["deleted"] <= 40
    assert index.verify() == []


def test_a_filter_is_remembered_until_the_next_commit(index):
    index.search(rows_of(7, 8)[1], where=EVEN)
    mask = index._view.allowed(EVEN)
    assert index._view.allowed(EVEN) is mask
    for at in range(40):
        index.search(rows_of(7, 8)[1], where=[Condition("even", "not_in", (at,))])
    assert len(index._view.masks) <= 16
    index.add([IndexRow("new", "x", {"even": True})], rows_of(7, 8)[1])
    index.commit()
    assert index.search(rows_of(7, 8)[1], k=1, where=EVEN)[0][0].id == "new"


def test_exact_search_needs_no_extra(tmp_path, monkeypatch):
    def missing():
        raise ResourceError("approximate search needs an extra")

    monkeypatch.setattr("simcse.index.sqlite.import_faiss", missing)
    monkeypatch.setattr(approximate, "import_faiss", missing)
    monkeypatch.setattr(exact, "optional_faiss", lambda: None)
    index = SqliteIndex.create(tmp_path / "index", FINGERPRINT)
    index.add(*rows_of(0, 20))
    index.commit()
    assert [hit.id for hit in index.search(rows_of(7, 8)[1], k=1)[0]] == ["7"]
    with pytest.raises(ResourceError, match="needs an extra"):
        index.rebuild(index_type="hnsw")
    with pytest.raises(ResourceError, match="needs an extra"):
        SqliteIndex.create(tmp_path / "other", FINGERPRINT, index_type="ivf")
    assert not (tmp_path / "other").exists()


def test_a_backup_is_an_index_and_restores_a_damaged_one(index, tmp_path):
    backup, expected = tmp_path / "backup", answers(index)
    copy_index(index.folder, backup)
    index.add(*rows_of(300, 310))
    index.commit()
    version = index.metadata.version
    copy_index(backup, index.folder)  # in the place of a sound one
    assert index.refresh()
    assert index.metadata.version > version
    assert answers(index) == expected
    cut(file_of(index, "vectors-*.npy"))
    with pytest.raises(ArtifactError, match="npy is damaged"):
        SqliteIndex.open(index.folder)
    copy_index(backup, index.folder)
    for name in ("index.db", "index.db-wal"):
        (index.folder / name).write_bytes(b"nothing of use" * 100)
    copy_index(backup, index.folder)
    assert answers(SqliteIndex.open(index.folder)) == expected
    assert SqliteIndex.open(index.folder).verify() == []
    flip(next(backup.glob("vectors-*.npy")))
    with pytest.raises(ArtifactError, match=r"npy is damaged"):
        copy_index(backup, index.folder)
    assert answers(SqliteIndex.open(index.folder)) == expected


def test_a_backup_does_not_overwrite_something_else(index, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    for target in (tmp_path / "letters", tmp_path / "letters" / "a.txt"):
        with pytest.raises(UsageError, match="something other than an index"):
            copy_index(index.folder, target)
    with pytest.raises(UsageError, match="is the index itself"):
        copy_index(index.folder, index.folder)


def test_a_folder_that_is_used_is_not_overwritten(index, tmp_path):
    with pytest.raises(UsageError, match="is there already"):
        SqliteIndex.create(index.folder, FINGERPRINT)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is there already"):
        SqliteIndex.create(tmp_path / "file", FINGERPRINT)
    with pytest.raises(ArtifactError, match="simcse index build"):
        SqliteIndex.open(tmp_path / "nowhere")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "index.db.new").write_bytes(b"half")
    assert len(SqliteIndex.create(tmp_path / "killed", FINGERPRINT)) == 0


def test_s23_metadata_that_cannot_be_read_back_is_refused_when_added(index):
    deep = []
    for _ in range(70):
        deep = [deep]
    for metadata in ({"a": 1 << 63}, {"a": deep}, {"a": float("nan")}, {"a": {1, 2}}, [1]):
        with pytest.raises(DataError, match="expected metadata"):
            index.add([IndexRow("a", "x", metadata)], rows_of(0, 1)[1])
    odd = {"a": [-(1 << 63), (1 << 63) - 1, 1e300, None, True], "": {"b": [[[]]]}, "ä": "\0\u2028"}
    index.add([IndexRow("a", "x", odd)], rows_of(0, 1)[1])
    index.commit()
    for value in (-(1 << 63), 1e300, None, True):
        hits = index.search(rows_of(0, 1)[1], where=[Condition("a", "in", (value,))])[0]
        assert [(hit.id, hit.metadata) for hit in hits] == [("a", odd)]
    huge = Condition("a", "gt", (10**400,))
    assert index.search(rows_of(0, 1)[1], where=[huge]) == [[]]
    with pytest.raises(UsageError, match="no JSON value"):
        index.search(rows_of(0, 1)[1], where=[Condition("a", "in", ("\ud800",))])
    assert index.verify() == []


def test_going_on_encodes_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("simcse.index.ingest.ENCODE_ROWS", 10)
    monkeypatch.setattr("simcse.index.ingest.CHUNK_ROWS", 20)
    (tmp_path / "a.txt").write_text("".join(f"{'x' * at}\n" for at in range(1, 51)))
    index = SqliteIndex.create(tmp_path / "index", FINGERPRINT)
    encoded = []

    def failing(texts):
        if len(encoded) >= 30:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return encode(texts)

    with pytest.raises(KeyboardInterrupt):
        ingest(index, [tmp_path / "a.txt"], failing)
    assert len(SqliteIndex.open(index.folder)) == 20
    seen = []
    again = SqliteIndex.open(index.folder)
    done = ingest(
        again,
        [tmp_path / "a.txt"],
        lambda texts: encoded.extend(texts) or encode(texts),
        on_batch=lambda rows, skipped: seen.append((rows, skipped)),
    )
    assert len(again) == 50
    assert done.added == 30
    assert seen[0] == (20, 20)
    assert encoded[30] == "x" * 21


def test_an_input_that_is_bad_in_the_middle_keeps_what_was_committed(tmp_path, monkeypatch):
    monkeypatch.setattr("simcse.index.ingest.ENCODE_ROWS", 2)
    monkeypatch.setattr("simcse.index.ingest.CHUNK_ROWS", 2)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * at}) + "\n" for at in range(1, 6)) + "{\n")
    index = SqliteIndex.create(tmp_path / "index", FINGERPRINT)
    with pytest.raises(DataError, match=r"a\.jsonl:6"):
        ingest(index, [path], encode)
    assert len(SqliteIndex.open(index.folder)) == 4


def test_a_read_only_folder_is_searched_and_not_written(index, tmp_path, monkeypatch):
    folder = closed(index, tmp_path)
    # Root may write everywhere, so here the question is answered for it.
    monkeypatch.setattr("simcse.index.sqlite_schema.os.access", lambda *_: False)
    folder.chmod(0o500)
    try:
        opened = SqliteIndex.open(folder)
        assert answers(opened) == answers(index)
        assert not opened.refresh()
        assert not (folder / "index.db-wal").exists()
    finally:
        folder.chmod(0o700)
