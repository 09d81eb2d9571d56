"""Bulk encoding in shards: kills, resuming with another engine, and what must not be mixed."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from commands import Command
from simcse import SentenceEncoder
from simcse.bulk import Reading, encode_shard, plan_shards
from simcse.errors import ArtifactError, DataError, UsageError
from simcse.index.sqlite import SqliteIndex
from simcse.io.files import ReadCounts
from simcse.io.formats import import_pyarrow
from simcse.io.parquet_shards import read_shard, write_shard
from simcse.io.rows import IndexRow
from simcse.model.fingerprint import model_fingerprint
from simcse.model.settings import ModelSettings

pytest.importorskip("pyarrow")
pytest.importorskip("faiss")
READING = Reading()
NOUNS = ("dog", "cat", "man", "woman", "guitar")


@pytest.fixture
def inputs(tmp_path):
    """Three files in three formats, 700 rows, some of them twice."""
    pyarrow = import_pyarrow()
    texts = [f"the {NOUNS[at % 5]} plays {at}" for at in range(300)]
    (tmp_path / "a.txt").write_text("\n".join([*texts, "", texts[0]]) + "\n")
    rows = [{"id": at, "text": text, "n": at} for at, text in enumerate(texts[:200])]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))

    pyarrow.parquet.write_table(pyarrow.table({"text": texts[100:299]}), tmp_path / "c.parquet")
    return [tmp_path / name for name in ("a.txt", "b.jsonl", "c.parquet")]


def command(inputs, output, model, *more):
    told = ("--model", model, "--output", output, "--shard-rows", 50, "--precision", "fp32")
    return ["encode", *map(str, (*inputs, *told, *more))]


def contents(folder):
    """Every row of every shard."""
    found = [
        (row.id, row.text, json.dumps(row.metadata), vector.round(4).tobytes())
        for shard in sorted(folder.glob("shard-*.parquet"))
        for rows, vectors in read_shard(shard)
        for row, vector in zip(rows, vectors + 0.0, strict=True)
    ]
    assert len(found) == 700
    return set(found)


def kill_at_shard(process, folder, shards):
    """Kill -9 a process when so many shards are there."""
    until = time.monotonic() + 240
    while len(list(folder.glob("shard-*.parquet"))) < shards:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_killed_driver_goes_on_behind_the_shards_that_are_there(
    simcse, inputs, tiny_model_folder, tmp_path
):
    whole, folder = tmp_path / "whole", tmp_path / "vectors"
    done = simcse(*command(inputs, whole, tiny_model_folder))
    assert "700 rows, 1 blank" in done.err
    asked = command(inputs, folder, tiny_model_folder)
    kill_at_shard(Command(asked, stderr=os.devnull), folder, 2)
    done = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.parquet")}
    assert 2 <= len(done) < 15
    assert simcse(*asked).code == 0
    assert contents(folder) == contents(whole)
    assert not list(folder.glob(".shard-*"))  # of the shard it was killed in
    assert all(path.stat().st_mtime_ns == written for path, written in done.items())
    encoder = SentenceEncoder.load(tiny_model_folder, precision="fp32")
    for rows, vectors in read_shard(folder / "shard-00003.parquet"):
        expected = encoder.encode([row.text for row in rows])
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def processes(mark):
    """Processes with an environment of ours, by id, with their names."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_x17_killed_workers_and_drivers_of_ray_lose_and_double_nothing(
    simcse, inputs, tiny_model_folder, tmp_path
):
    pytest.importorskip("ray")
    whole, folder, mark = tmp_path / "whole", tmp_path / "vectors", uuid.uuid4().hex
    assert simcse(*command(inputs, whole, tiny_model_folder)).code == 0
    ray = command(inputs, folder, tiny_model_folder, "--engine", "ray", "--workers", "2")
    asked = [sys.executable, "-m", "simcse", *ray]
    # Ray gives way to every other process; a test on a busy machine would never end.
    environment = {**os.environ, "SIMCSE_TEST_MARK": mark, "RAY_worker_niceness": "0"}
    try:
        with subprocess.Popen(asked, stderr=subprocess.DEVNULL, env=environment) as running:
            while not list(folder.glob("shard-*.parquet")):
                assert running.poll() is None
                time.sleep(0.005)
            workers = [pid for pid, name in processes(mark).items() if name.startswith("ray::Map")]
            assert workers
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            kill_at_shard(running, folder, 4)
        assert len(list(folder.glob("shard-*.parquet"))) < 15
        done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        for pid in processes(mark):
            os.kill(pid, signal.SIGKILL)
    assert contents(folder) == contents(whole)
    again = simcse(*command(inputs, folder, tiny_model_folder))
    assert "15 shards" in again.err  # the other engine agrees


def test_shards_go_into_an_index_once(simcse, inputs, tiny_model_folder, tmp_path, monkeypatch):
    encoder = SentenceEncoder.load(tiny_model_folder, precision="fp32")
    SqliteIndex.create(tmp_path / "index", model_fingerprint(encoder, "tiny"))
    asked = [*command(inputs[:2], tmp_path / "v", tiny_model_folder), "--index"]
    calls = iter(range(5))
    with monkeypatch.context() as patched:
        commit = SqliteIndex.commit

        def stopping(index, **metadata):
            if next(calls) == 3:
                raise KeyboardInterrupt
            return commit(index, **metadata)

        patched.setattr(SqliteIndex, "commit", stopping)
        assert simcse(*asked, tmp_path / "index").code == 130
    assert len(SqliteIndex.open(tmp_path / "index")) == 150
    outcome = simcse(*asked, tmp_path / "index")
    assert outcome.code == 0, outcome.err
    index = SqliteIndex.open(tmp_path / "index")
    assert len(index) == 500  # of 501 rows one text is there twice
    assert index.metadata.progress == {}
    (hit,) = index.search(encoder.encode(["the dog plays 5"]), k=1)[0]
    assert hit.score == pytest.approx(1.0, abs=1e-5)


def test_another_job_in_the_folder_is_refused(simcse, inputs, tiny_model_folder, tmp_path):
    asked = command(inputs[:1], tmp_path / "v", tiny_model_folder)
    assert simcse(*asked).code == 0
    for change, said in (
        (("--shard-rows", 60), "shards"),
        (("--truncation", "truncate"), 'truncation is "warn" there and "truncate" here'),
        (("--max-length", 16), "fingerprint"),
    ):
        outcome = simcse(*asked, *change)
        assert (outcome.code, said in outcome.err) == (4, True), outcome.err
    inputs[0].write_text("another file\n")
    assert simcse(*asked).code == 4
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert simcse(*command(inputs[:1], tmp_path / "used", tiny_model_folder)).code == 2


def test_shards_are_of_the_dimensions_asked_for(simcse, inputs, make_encoder, tmp_path):
    encoder = make_encoder(ModelSettings("mean", max_length=32, normalize=True, matryoshka=(8,)))
    encoder.save(tmp_path / "model")
    asked = command(inputs[:1], tmp_path / "v", tmp_path / "model", "--dimensions", 8)
    assert simcse(*asked).code == 0
    ((rows, vectors),) = read_shard(tmp_path / "v" / "shard-00000.parquet")
    expected = encoder.encode([row.text for row in rows], dimensions=8)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    other = simcse(*command(inputs[:1], tmp_path / "v", tmp_path / "model"))
    assert other.code == 4
    assert "dimensions is 8 there and null here" in other.err


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--output", "v.npy", "--engine", "ray"), 2),
        (("--output", "v.nyp"), 2),
        (("--output", "v", "--model", "mini"), 3),
    ],
)
def test_a_slip_has_its_exit_code(simcse, tmp_path, more, code, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    outcome = simcse("encode", "empty.txt", *more)
    assert outcome.code == code, outcome.err
    assert not (tmp_path / "v").exists()


def test_a_file_that_changed_after_planning_is_refused(inputs, tmp_path):
    shards = plan_shards(inputs[:1], 200, READING, ReadCounts())
    assert [(shard.first, shard.rows) for shard in shards] == [(0, 200), (200, 101)]
    inputs[0].write_text("one row\n")
    with pytest.raises(DataError, match="199 rows fewer than planned"):
        encode_shard(shards[0], lambda texts: np.ones((len(texts), 2)), tmp_path, READING)
    assert not list(tmp_path.glob("shard-*"))
    with pytest.raises(UsageError, match="standard input cannot be read twice"):
        plan_shards(["-"], 2, READING, ReadCounts())


def test_a_shard_is_what_was_written(tmp_path):
    rows = [IndexRow("1", "a", {"tag": ["x", None], "n": 1.5}), IndexRow("ä", 'quote " and \n', {})]
    vectors = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
    assert write_shard(tmp_path / "a.parquet", [(rows, vectors), (rows[:1], vectors[:1])]) == 3
    found = list(read_shard(tmp_path / "a.parquet"))
    assert [row for chunk, _ in found for row in chunk] == [*rows, rows[0]]
    np.testing.assert_array_equal(np.concatenate([v for _, v in found]), vectors[[0, 1, 0]])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    for missing in ("b.parquet", "c.parquet"):
        with pytest.raises(ArtifactError, match=f"cannot read .*{missing}"):
            list(read_shard(tmp_path / missing))
