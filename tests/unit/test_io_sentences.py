"""`read_sentences`: every format, counts, and failing before the first sentence is wanted."""

import gzip
import io
import json
import sys
import tracemalloc

import pytest

from simcse.errors import DataError, ResourceError
from simcse.io.files import ReadCounts
from simcse.io.sentences import count_lines, read_sentences

SENTENCES = ["One.", "Two\u2028halves.", "Trois étés."]


def write(path, sentences):
    if path.name.startswith("a.jsonl"):
        sentences = [json.dumps({"text": sentence}) for sentence in sentences]
    data = "".join(f"{sentence}\n" for sentence in sentences).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz"])
def test_text_formats(tmp_path, name):
    assert list(read_sentences(write(tmp_path / name, SENTENCES))) == SENTENCES


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": [1, 2, 3], "line": SENTENCES}), path)
    assert list(read_sentences(path, column="line")) == SENTENCES
    with pytest.raises(DataError, match=r"no column 'text', the file has: id, line"):
        read_sentences(path)
    path.write_text("not parquet")
    with pytest.raises(DataError, match="cannot read"):
        read_sentences(path)


def test_parquet_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ResourceError, match=r"pip install 'simcse-next\[parquet\]'"):
        read_sentences(tmp_path / "a.parquet")


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\r\n\ntwo")))
    assert list(read_sentences("-")) == ["one", "two"]


def test_d4_blank_lines_are_counted_and_numbering_kept(tmp_path):
    counts = ReadCounts()
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n \n\x00\none\n\n\xff\n")
    assert list(read_sentences(path, bad_lines="skip", counts=counts)) == ["one"]
    assert counts == ReadCounts(rows=1, blank=4, skipped=1)
    with pytest.raises(DataError, match=r"a.txt:6:1:"):
        list(read_sentences(path))


@pytest.mark.parametrize("data", [b"", b"\n \n\x00\n"])
def test_d8_no_usable_rows_fails_at_the_call(tmp_path, data):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match="no usable rows"):
        read_sentences(path)


def test_missing_file_fails_at_the_call(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_sentences(tmp_path / "none.txt")


def test_records_without_the_field_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": 1}\n["text"]\n{"text": "fine"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:1: expected a text field 'text'"):
        read_sentences(path)
    assert list(read_sentences(path, bad_lines="skip")) == ["fine"]


def test_unknown_format_names_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"expected \.txt, \.jsonl .* got the format 'doc'"):
        read_sentences(tmp_path / "a.doc")


def test_memory_stays_constant(tmp_path):
    path = write(tmp_path / "a.txt.gz", ["A sentence of some length."] * 100_000)
    tracemalloc.start()
    assert sum(1 for _ in read_sentences(path)) == 100_000
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_lines_are_counted_for_a_progress_bar(tmp_path):
    assert count_lines(write(tmp_path / "a.txt", ["one", "", "two"])) == 3
    assert count_lines(write(tmp_path / "a.jsonl.gz", SENTENCES)) == 3
    assert count_lines("-") is None
    assert count_lines(tmp_path / "a.parquet") is None
