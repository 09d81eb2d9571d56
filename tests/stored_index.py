"""A small index in a folder, and damage to its files."""

import numpy as np

from simcse.index.filters import Condition
from simcse.index.sqlite_backup import copy_index
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow

DIMENSIONS = 8
FINGERPRINT = ModelFingerprint("m", "f" * 64, DIMENSIONS, {"pooling": "mean", "max_length": 32})
EVEN = [Condition("even", "in", (True,))]


def rows_of(first, last):
    rows = [IndexRow(str(at), f"text {at}", {"even": at % 2 == 0}) for at in range(first, last)]
    vectors = [np.random.default_rng(at).normal(size=DIMENSIONS) for at in range(first, last)]
    return rows, np.array(vectors, np.float32)


def encode(texts):
    return np.array([np.random.default_rng(len(text)).normal(size=DIMENSIONS) for text in texts])


def answers(index):
    """Everything that an index can be asked."""
    queries = rows_of(7, 10)[1]
    rows, vectors = index.sample(1000)
    found = [index.search(queries, k=5), index.search(queries, k=5, where=EVEN)]
    return rows, vectors.tolist(), found, index.metadata.read_values(5), len(index)


def file_of(index, name):
    return next(index.folder.glob(name))


def flip(path, at=None, bit=4):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 if at is None else at] ^= bit
    path.write_bytes(damaged)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def closed(index, tmp_path):
    """A copy that nobody has open: all of it is in its files."""
    folder = tmp_path / "copy"
    copy_index(index.folder, folder)
    return folder
