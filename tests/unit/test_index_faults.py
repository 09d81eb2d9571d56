"""What befalls an index: damage, kills, full disks, other writers, other models."""

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from simcse.errors import (
    ArtifactError,
    DataError,
    NumericError,
    ResourceError,
    SimcseWarning,
    UsageError,
)
from simcse.index.embedded import EmbeddedIndex
from simcse.index.ingest import ingest
from simcse.index.snapshot import damages
from simcse.io import generations
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.generations import copy_current
from simcse.io.rows import Row

pytest.importorskip("faiss")
DIMENSIONS = 8
FINGERPRINT = ModelFingerprint("m", "f" * 64, DIMENSIONS, {"pooling": "mean", "max_length": 32})
TRUTH = ["CURRENT", "manifest.json", "deleted.npy", "vectors.safetensors", "rows.jsonl"]
DERIVED = ["offsets.npy", "keys.npy", "codes.npy", "values.json", "approximate.faiss"]


def rows_of(first, last):
    rows = [Row(str(at), f"text {at}", {"even": at % 2 == 0}) for at in range(first, last)]
    vectors = [np.random.default_rng(at).normal(size=DIMENSIONS) for at in range(first, last)]
    return rows, np.array(vectors, np.float32)


def encode(texts):
    return np.array([np.random.default_rng(len(text)).normal(size=DIMENSIONS) for text in texts])


@pytest.fixture
def index(tmp_path):
    opened = EmbeddedIndex.create(tmp_path / "index", FINGERPRINT, kind="int8")
    opened.add(*rows_of(0, 120))
    opened.commit()
    opened.remove(["3"])
    opened.commit()
    opened.rebuild()
    return opened


def file_of(index, name):
    folder = index.folder if name == "CURRENT" else index.snapshot.generation.folder
    return next(folder.rglob(name))


def flip(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", TRUTH)
def test_x1_x2_damage_is_refused_by_name(index, name, damage):
    path = file_of(index, name)
    damage(path)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.") + r"|generations") as caught:
        EmbeddedIndex.open(index.folder)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", DERIVED)
def test_x1_x2_what_is_derived_is_made_again(index, name, damage):
    query = rows_of(7, 8)[1]
    expected = index.search(query, k=3)
    path = file_of(index, name)
    damage(path)
    assert [name in problem for problem in damages(index.folder)] == [True]
    with pytest.warns(SimcseWarning, match=name.replace(".", r"\.") + ".*it is made again"):
        mended = EmbeddedIndex.open(index.folder)
    assert mended.search(query, k=3) == expected
    assert damages(index.folder) == []


def test_a_linked_file_that_is_damaged_is_not_hidden_by_the_next_generation(index):
    flip(file_of(index, "vectors.safetensors"))
    index.add(*rows_of(500, 501))
    index.commit()
    with pytest.raises(ArtifactError, match=r"vectors\.safetensors is damaged"):
        EmbeddedIndex.open(index.folder)
    with pytest.raises(ArtifactError, match=r"vectors\.safetensors is damaged"):
        index.rebuild()
    with pytest.raises(ArtifactError, match=r"vectors\.safetensors is damaged"):
        index.compact()


CRASHING = """
import os, signal, sys
from simcse.index.embedded import EmbeddedIndex
from simcse.io.rows import Row
import numpy as np
folder, after, act = sys.argv[1], int(sys.argv[2]), sys.argv[3]
index = EmbeddedIndex.open(folder)
fsync = os.fsync
def killing(descriptor):
    global after
    after -= 1
    if after < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
os.fsync = killing
if act == "add":
    index.add([Row("new", "new", {"even": True})], np.ones((1, 8), np.float32))
    index.commit()
else:
    index.compact()
"""


@pytest.mark.slow
@pytest.mark.parametrize("act", ["add", "compact"])
def test_x3_a_kill_at_any_moment_leaves_the_old_or_the_new(index, act):
    found, code = [], -signal.SIGKILL
    for after in range(0, 60, 4):
        command = [sys.executable, "-c", CRASHING, str(index.folder), str(after), act]
        code = subprocess.run(command, check=False).returncode
        reopened = EmbeddedIndex.open(index.folder)
        assert damages(index.folder) == []
        assert len(reopened) in (119, 120)
        found.append(len(reopened))
        if code == 0:
            break
    assert code == 0  # the last one came through
    assert found == sorted(found)
    assert found[-1] == (120 if act == "add" else 119)
    folders = sorted(path.name for path in (index.folder / "generations").iterdir())
    assert len(folders) == 2  # nothing of the killed writers is left


def test_x4_a_full_disk_leaves_the_old_and_what_is_staged(index, monkeypatch):
    index.add(*rows_of(200, 205))
    before = index.snapshot.generation.number
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(ResourceError, match="No space left") as caught:
            index.commit()
    assert caught.value.exit_code == 5
    assert EmbeddedIndex.open(index.folder).snapshot.generation.number == before
    assert index.commit().added == 5


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB that can really be full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_x4_a_disk_that_is_really_full(small_disk, tmp_path):
    place = small_disk / "index"
    index = EmbeddedIndex.create(place, FINGERPRINT)
    index.add(*rows_of(0, 1000))
    index.commit()
    index.remove(["3"])
    index.commit()
    query = rows_of(7, 8)[1]
    expected = index.search(query, k=5)
    status = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(status.f_bavail * status.f_frsize - 30_000))
    copy_current(place, tmp_path / "copy")

    def add():
        index.add(*rows_of(2000, 3000))
        index.commit()

    for write in (
        add,
        index.compact,
        lambda: index.rebuild(kind="int8"),
        lambda: copy_current(tmp_path / "copy", small_disk / "backup"),
        lambda: copy_current(tmp_path / "copy", place),
    ):
        with pytest.raises(ResourceError, match="No space left on device"):
            write()
        reopened = EmbeddedIndex.open(place)
        assert (len(reopened), reopened.search(query, k=5)) == (999, expected)
        assert damages(place) == []
    filler.unlink()
    assert index.commit().added == 1000  # what was staged stayed
    index.compact()
    assert len(EmbeddedIndex.open(place)) == 1999


def test_x5_a_second_writer_is_refused(index, monkeypatch):
    monkeypatch.setattr(generations, "LOCK_SECONDS", 0.05)
    index.add(*rows_of(200, 201))
    with (index.folder / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for write in (index.commit, index.compact, index.rebuild):
            with pytest.raises(ResourceError, match="another process is writing"):
                write()
    assert index.commit().added == 1


def test_two_writers_after_each_other_lose_nothing(index):
    other = EmbeddedIndex.open(index.folder)
    index.add(*rows_of(200, 203))
    other.add(*rows_of(202, 205))
    assert index.commit().added == 3
    assert dataclasses.astuple(other.commit()) == (2, 1, 0)
    assert index.refresh()
    assert not index.refresh()
    assert len(index) == len(other) == 124


def test_x6_another_models_index_is_refused_with_the_mend(index):
    other = ModelFingerprint("n", "e" * 64, DIMENSIONS, {"pooling": "cls", "max_length": 32})
    with pytest.raises(ArtifactError, match="pooling 'mean' there, 'cls' here.*index build NEW"):
        index.require_model(other)
    with pytest.raises(ArtifactError, match="other weights or another tokenizer"):
        index.require_model(dataclasses.replace(FINGERPRINT, sha256="e" * 64))
    index.require_model(dataclasses.replace(FINGERPRINT, name="the same at another place"))


def test_x12_readers_finish_on_the_generation_they_have(index):
    reader = EmbeddedIndex.open(index.folder)
    query = rows_of(7, 8)[1]
    expected, stop, wrong = reader.search(query, k=5), threading.Event(), []

    def read():
        while not stop.is_set():
            if reader.search(query, k=5) != expected:
                wrong.append("another answer")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for at in range(300, 306):
            index.add(*rows_of(at, at + 1))
            index.commit()
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    assert len(reader) == 119
    assert reader.refresh()
    assert len(reader) == 125


def test_x13_a_recall_below_the_floor_fails_the_build(index):
    before = index.snapshot.generation.number
    rows = [Row(str(at), "x") for at in range(3000)]
    vectors = np.random.default_rng(0).normal(size=(3000, DIMENSIONS))
    index.add(rows, 1 + vectors * 1e-4)  # neighbors that one bit a dimension cannot tell apart
    index.commit()
    with pytest.raises(NumericError, match=r"binary: recall@10 is 0\.\d+.*lower it with --recall"):
        index.rebuild(kind="binary", recall=0.999)
    assert index.facts["kind"] == "int8"
    assert index.snapshot.generation.number == before + 1
    index.rebuild(kind="binary", recall=0.0)
    assert index.facts["approximation"]["recall"] < 0.999


def test_small_commits_do_not_make_many_segments(tmp_path):
    index = EmbeddedIndex.create(tmp_path / "index", FINGERPRINT)
    for at in range(40):
        index.add(*rows_of(at, at + 1))
        index.commit()
    assert len(index) == 40
    assert len(index.snapshot.segments) <= 6


def test_a_backup_is_an_index_and_restores_a_damaged_one(index, tmp_path):
    query = rows_of(7, 8)[1]
    expected = index.search(query, k=3)
    copy_current(index.folder, tmp_path / "backup")
    index.add(*rows_of(300, 310))
    index.commit()
    (index.folder / "CURRENT").write_text("{}")
    with pytest.raises(ArtifactError, match="CURRENT is damaged"):
        EmbeddedIndex.open(index.folder)
    copy_current(tmp_path / "backup", index.folder)
    assert EmbeddedIndex.open(index.folder).search(query, k=3) == expected
    flip(next((tmp_path / "backup").rglob("rows.jsonl")))
    with pytest.raises(ArtifactError, match=r"rows\.jsonl is damaged"):
        copy_current(tmp_path / "backup", index.folder)
    assert EmbeddedIndex.open(index.folder).search(query, k=3) == expected


def test_a_folder_that_is_used_is_not_overwritten(index, tmp_path):
    with pytest.raises(UsageError, match="is there already"):
        EmbeddedIndex.create(index.folder, FINGERPRINT)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is there already"):
        EmbeddedIndex.create(tmp_path / "file", FINGERPRINT)
    with pytest.raises(ArtifactError, match="simcse index build"):
        EmbeddedIndex.open(tmp_path / "nowhere")


def test_going_on_encodes_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("simcse.index.ingest.ENCODE_ROWS", 10)
    monkeypatch.setattr("simcse.index.ingest.SEGMENT_ROWS", 20)
    (tmp_path / "a.txt").write_text("".join(f"{'x' * at}\n" for at in range(1, 51)))
    index = EmbeddedIndex.create(tmp_path / "index", FINGERPRINT)
    encoded = []

    def failing(texts):
        if len(encoded) >= 30:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return encode(texts)

    with pytest.raises(KeyboardInterrupt):
        ingest(index, [tmp_path / "a.txt"], failing)
    assert len(EmbeddedIndex.open(index.folder)) == 20
    seen = []
    again = EmbeddedIndex.open(index.folder)
    done = ingest(
        again,
        [tmp_path / "a.txt"],
        lambda texts: encoded.extend(texts) or encode(texts),
        observe=lambda rows, skipped: seen.append((rows, skipped)),
    )
    assert len(again) == 50
    assert done.added == 30
    assert seen[0] == (20, 20)
    assert encoded[30] == "x" * 21


def test_an_input_that_is_bad_in_the_middle_keeps_what_was_committed(tmp_path, monkeypatch):
    monkeypatch.setattr("simcse.index.ingest.ENCODE_ROWS", 2)
    monkeypatch.setattr("simcse.index.ingest.SEGMENT_ROWS", 2)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * at}) + "\n" for at in range(1, 6)) + "{\n")
    index = EmbeddedIndex.create(tmp_path / "index", FINGERPRINT)
    with pytest.raises(DataError, match=r"a\.jsonl:6"):
        ingest(index, [path], encode)
    assert len(EmbeddedIndex.open(index.folder)) == 4


def test_a_read_only_folder_is_searched_and_not_written(index):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    index.folder.chmod(0o500)
    try:
        assert EmbeddedIndex.open(index.folder).search(rows_of(7, 8)[1], k=1)[0][0].id == "7"
    finally:
        index.folder.chmod(0o700)
