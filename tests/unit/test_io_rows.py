"""Rows of an index from text, JSONL and Parquet."""

import datetime
import gzip
import json

import pytest

from simcse.errors import DataError
from simcse.io.files import ReadCounts
from simcse.io.records import read_index_rows
from simcse.io.rows import make_row


def test_text_has_its_hash_as_id_and_blank_lines_are_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n two\x00words \none\n")
    counts = ReadCounts()
    rows = list(read_index_rows(tmp_path / "a.txt", counts=counts))
    assert [row.text for row in rows] == ["one", "two words", "one"]
    assert rows[0].id == rows[2].id != rows[1].id
    assert (counts.rows, counts.blank) == (3, 1)


def test_other_fields_of_jsonl_are_metadata(tmp_path):
    lines = [
        {"id": 7, "text": "one", "lang": "en", "tags": ["a", "b"]},
        {"text": "two\u2028still two", "lang": None},
    ]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    one, two = read_index_rows(path)
    assert (one.id, one.text, one.metadata) == ("7", "one", {"lang": "en", "tags": ["a", "b"]})
    assert (two.text, two.metadata) == ("two\u2028still two", {"lang": None})


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    day = datetime.date(2020, 1, 2)
    table = pyarrow.table({"key": ["a", "b"], "body": ["one", "two"], "day": [day, None]})
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = list(read_index_rows(tmp_path / "a.parquet", columns="text=body,id=key"))
    assert [(row.id, row.text) for row in rows] == [("a", "one"), ("b", "two")]
    assert [row.metadata for row in rows] == [{"day": "2020-01-02"}, {"day": None}]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": 1}', r"a\.jsonl:2: expected a text"),
        ('{"text": 3}', r"a\.jsonl:2: expected a text"),
        ('["text"]', r"a\.jsonl:2: expected a JSON object"),
        ('{"text": "a", "id": 1.5}', r"a\.jsonl:2: expected an id that is text or a whole number"),
        ('{"text": "a", "id": true}', r"a\.jsonl:2: expected an id"),
        ('{"text": "a", "id": ""}', r"a\.jsonl:2: expected an id of 1 to 512 bytes"),
        ('{"text": "a", "x": NaN}', r"a\.jsonl:2: expected metadata of JSON values"),
        ('{"text": "\\ud800"}', r"a\.jsonl:2: not JSON text"),
        ("{", r"a\.jsonl:2: not JSON text"),
    ],
)
def test_a_bad_row_is_named_or_skipped(tmp_path, line, problem):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(DataError, match=problem):
        list(read_index_rows(path))
    counts = ReadCounts()
    rows = list(read_index_rows(path, bad_lines="skip", counts=counts))
    assert [row.text for row in rows] == ["good"]
    assert (counts.rows, counts.skipped) == (1, 1)


def test_what_is_no_row():
    for arguments in [(" ",), ("a", "x" * 513), ("a", "b", [1]), ("a", "b", {"c": object()})]:
        with pytest.raises(DataError):
            make_row(*arguments)
    deep = []
    for _ in range(63):
        deep = [deep]
    assert make_row("a", "b", {"c": deep[0], "d": -(1 << 63)}).metadata["c"] == deep[0]
    for value in ([deep], 1 << 63, -(1 << 63) - 1, 10**5000):
        with pytest.raises(DataError, match=r"nested more than 64|more than 64 bits|digits"):
            make_row("a", "b", {"c": value})
