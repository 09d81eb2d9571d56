"""Fixtures of several test files."""

import gzip

import pytest

from simcse.index.sqlite import SqliteIndex
from simcse.io.records import read_examples
from stored_index import FINGERPRINT, rows_of


@pytest.fixture
def read(tmp_path):
    def write_and_read(name, text, **options):
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return read_examples(path, **options)

    return write_and_read


@pytest.fixture
def index(tmp_path):
    """119 rows in two chunks, one of them with a removed row, and a structure."""
    pytest.importorskip("faiss")
    opened = SqliteIndex.create(tmp_path / "index", FINGERPRINT, index_type="int8")
    opened.add(*rows_of(0, 100))
    opened.commit()
    opened.add(*rows_of(100, 120))
    opened.remove(["3"])
    opened.commit()
    opened.rebuild()
    return opened
