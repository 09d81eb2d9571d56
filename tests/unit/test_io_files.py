"""Lines, control characters and the atomic writer; test names carry the fault matrix's ids."""

import gzip
import io
import os
import signal
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse.errors import DataError, ResourceError, UsageError
from simcse.io.files import (
    MAX_LINE_BYTES,
    ReadCounts,
    Source,
    atomic_path,
    clean_text,
    file_format,
    read_json_lines,
    read_lines,
    sha256_file,
    write_text,
)


def lines_of(path, data, **options):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return list(read_lines(Source(path, **options)))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_lines_are_numbered_from_one(tmp_path, name):
    assert lines_of(tmp_path / name, b"one\ntwo") == [(1, "one"), (2, "two")]


def test_empty_file_has_no_lines(tmp_path):
    assert lines_of(tmp_path / "a.txt", b"") == []


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_d1_invalid_utf8_names_file_line_and_byte(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}:2:4: expected UTF-8, found .* 0xff") as error:
        lines_of(tmp_path / name, b"fine\nabc\xffdef\n")
    assert error.value.exit_code == 3


def test_d1_invalid_utf8_is_skipped_and_counted(tmp_path):
    counts = ReadCounts()
    lines = lines_of(tmp_path / "a.txt", b"a\n\xff\nb\n", bad_lines="skip", counts=counts)
    assert lines == [(1, "a"), (2, None), (3, "b")]
    assert counts.skipped == 1


def test_d1_a_cut_character_at_the_end_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"a.txt:1:2:"):
        lines_of(tmp_path / "a.txt", "aé".encode()[:-1])


def test_d2_byte_order_mark_and_crlf_are_stripped(tmp_path):
    data = b"\xef\xbb\xbfone\r\ntwo\r\n\xef\xbb\xbfthree"
    expected = [(1, "one"), (2, "two"), (3, "\ufeffthree")]
    assert lines_of(tmp_path / "a.txt", data) == expected


def test_d3_unicode_line_separators_stay_inside_a_sentence(tmp_path):
    sentence = "a\u2028b\u2029c\u0085d"
    assert lines_of(tmp_path / "a.txt", f"{sentence}\n".encode()) == [(1, sentence)]
    assert clean_text(sentence) == sentence


def test_d4_blank_lines_keep_the_numbering(tmp_path):
    lines = lines_of(tmp_path / "a.txt", b"\n\na\n")
    assert lines[-1] == (3, "a")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_d5_a_100_mb_line_fails_in_bounded_memory(tmp_path, name):
    path = tmp_path / name
    opener = gzip.GzipFile(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb")
    with opener as stream:
        stream.write(b"fine\n")
        for _ in range(100):
            stream.write(bytes(1 << 20))
        stream.write(b"\nalso fine\n")
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{name}:2: expected at most 1,048,576 bytes"):
        list(read_lines(Source(path)))
    counts = ReadCounts()
    lines = list(read_lines(Source(path, "skip", counts)))
    assert tracemalloc.get_traced_memory()[1] < 6 * MAX_LINE_BYTES
    tracemalloc.stop()
    assert lines == [(1, "fine"), (2, None), (3, "also fine")]
    assert counts.skipped == 1


def test_d5_the_limit_itself_is_allowed(tmp_path):
    data = b"a" * MAX_LINE_BYTES
    assert len(lines_of(tmp_path / "a.txt", data + b"\n" + data)) == 2


def test_d7_control_characters_become_spaces():
    controls = [*range(0x20), *range(0x7F, 0x85), *range(0x86, 0xA0)]
    assert all(clean_text(f"a{chr(code)}b") == "a b" for code in controls)
    assert clean_text("\x00 a\tb\r\n") == "a b"


@given(st.text())
def test_d7_cleaning_twice_changes_nothing(text):
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert not set(cleaned) & set(map(chr, range(0x20)))


def test_d11_truncated_gzip_names_the_byte(tmp_path):
    data = gzip.compress(os.urandom(50_000))
    path = tmp_path / "a.txt.gz"
    path.write_bytes(data[:30_000])
    with pytest.raises(DataError, match=r"truncated gzip at byte 30,000 of 30,000"):
        list(read_lines(Source(path, "skip")))


@pytest.mark.parametrize("damage", ["header", "middle", "checksum"])
def test_d11_corrupt_gzip_names_the_byte(tmp_path, damage):
    data = bytearray(gzip.compress(b"some text\n" * 1000))
    at = {"header": 0, "middle": len(data) // 2, "checksum": len(data) - 6}[damage]
    data[at] ^= 0xFF
    path = tmp_path / "a.txt.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"gzip at byte \d+"):
        list(read_lines(Source(path)))


def test_missing_file_and_folder_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none.txt: No such file"):
        list(read_lines(Source(tmp_path / "none.txt")))
    with pytest.raises(DataError, match="Is a directory"):
        list(read_lines(Source(tmp_path)))
    with pytest.raises(DataError, match="No such file"):
        sha256_file(tmp_path / "none")


def test_unpermitted_file_is_a_data_error(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root, as in CI, reads every file
    with pytest.raises(DataError, match=r"cannot read .*a.txt: Permission denied"):
        list(read_lines(Source(tmp_path / "a.txt")))


def test_standard_input(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"a\n\xff\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(DataError, match=r"<stdin>:2:1:"):
        list(read_lines(Source(Path("-"))))


def test_unknown_treatment_of_bad_lines(tmp_path):
    with pytest.raises(UsageError, match="'error' or 'skip', found 'ignore'"):
        Source(tmp_path, "ignore")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"))))
def test_lines_round_trip(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    write_text(path, "".join(text + "\n" for text in texts))
    assert [line for _, line in read_lines(Source(path))] == texts


def test_json_lines_refuse_what_is_not_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{\n"\\ud800"\n' + b"[" * 100_000 + b"\n[2]\n")
    counts = ReadCounts()
    assert list(read_json_lines(Source(path, "skip", counts))) == [(1, {"a": 1}), (6, [2])]
    assert (counts.blank, counts.skipped) == (1, 3)
    with pytest.raises(DataError, match=r"a.jsonl:3: not JSON text"):
        list(read_json_lines(Source(path)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.TXT.gz", "txt"), ("-", "txt"), ("a.b.jsonl", "jsonl"), ("none", ""), ("a.gz", "")],
)
def test_format_comes_from_the_name(name, expected):
    assert file_format(Path(name)) == expected


def test_counts_read_as_a_sentence():
    assert str(ReadCounts(1000, 2, 3)) == "1,000 rows, 2 blank, 3 bad lines skipped"


def test_atomic_write_leaves_the_old_file_on_error(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old")
    with pytest.raises(ResourceError, match="cannot write"), atomic_path(path):
        raise OSError(28, "No space left on device")
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_what_a_killed_writer_left_goes_and_a_living_one_s_file_stays(tmp_path):
    path = tmp_path / "vectors.parquet"
    ready, child = os.pipe(), os.fork()
    if child == 0:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            os.write(ready[1], b"!")
            signal.pause()
        os._exit(0)
    os.read(ready[0], 1)
    (left,) = tmp_path.iterdir()
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert left.read_text() == "half"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with atomic_path(tmp_path / "vectors") as temporary:  # another file, of nearly its name
        temporary.write_text("other")
    assert left.exists()
    with atomic_path(path) as first, atomic_path(path) as second:
        assert not left.exists()
        first.write_text("last")
        second.write_text("first")
    assert path.read_text() == "last"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "vectors", path]


def test_atomic_write_below_a_file_is_a_resource_error(tmp_path):
    write_text(tmp_path / "file", "")
    with pytest.raises(ResourceError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "")
