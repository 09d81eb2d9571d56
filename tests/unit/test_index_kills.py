"""An index whose writers are killed at any moment, in a folder and in PostgreSQL."""

import subprocess
import sys
import time

import numpy as np
import pytest

from simcse.index.uri import create_index, open_index
from simcse.io.fingerprint import ModelFingerprint

FINGERPRINT = ModelFingerprint("m", "f" * 64, 8, {"pooling": "mean", "max_length": 32})

INGESTING = """
import sys, time
from pathlib import Path
import numpy as np
from simcse.index import ingest as module
from simcse.index.uri import open_index
def encode(texts):
    time.sleep(0.002)
    return np.array([np.random.default_rng(int(t.split()[1])).normal(size=8) for t in texts])
module.ENCODE_ROWS, module.CHUNK_ROWS = 20, 60
index = open_index(sys.argv[1])
commit = index.commit
def commit_and_compact(progress):
    done = commit(progress=progress)
    index.rebuild(compact=True)
    return done
index.commit = commit_and_compact
print("ready", flush=True)
module.ingest(index, [Path(sys.argv[2])], encode)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["folder", "postgres"])
def test_kills_while_adding_and_compacting_lose_and_double_nothing(tmp_path, request, kept):
    in_folder = kept == "folder"
    place = tmp_path / "index" if in_folder else request.getfixturevalue("postgres").new_index()
    (tmp_path / "a.txt").write_text("".join(f"text {at}\n" for at in range(3000)))
    create_index(place, FINGERPRINT, progress={"build": 0})
    command = [sys.executable, "-c", INGESTING, str(place), str(tmp_path / "a.txt")]
    random, rows = np.random.default_rng(0), 0
    for _ in range(40 if in_folder else 20):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            assert running.stdout.readline() == b"ready\n"
            time.sleep(random.uniform(0.0, 0.4))
            running.kill()
        index = open_index(place)
        assert len(index) >= rows  # what was committed stays, and each run goes on from it
        rows = len(index)
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    index = open_index(place)
    there, _ = index.sample(10_000)
    assert len(index) == len(there) == 3000
    assert sorted(row.text for row in there) == sorted(f"text {at}" for at in range(3000))
    assert index.verify() == []
    vector = np.random.default_rng(77).normal(size=(1, 8))
    assert index.search(vector, k=1)[0][0].text == "text 77"
