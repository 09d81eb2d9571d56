"""Fixtures of the readers' tests."""

import gzip

import pytest

from simcse.io.records import read_examples


@pytest.fixture
def read(tmp_path):
    def write_and_read(name, text, **options):
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return read_examples(path, **options)

    return write_and_read
