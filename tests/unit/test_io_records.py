"""The one reader: every format and role, the header rule, doubts, bad rows by physical line."""

import csv
import gzip
import io
import json
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse.errors import ConfigError, DataError, ResourceError
from simcse.io.benchmarks import data_folder
from simcse.io.files import ReadCounts, clean_text
from simcse.io.records import (
    Example,
    read_examples,
    read_index_rows,
    read_pairs,
    read_scored_pairs,
    read_texts,
)

TRIPLET = Example("a b c d.", "p q r s.", ("n m o l.",))
ROW = ["a b c d.", "p q r s.", "n m o l."]
TABLES = ["a.tsv", "a.tsv.gz", "a.csv", "a.csv.gz"]
FORMATS = [*TABLES, "a.jsonl", "a.jsonl.gz", "a.parquet"]


def write_table(path, names, rows):
    """Write rows in the format of the path; without ``names`` there is no header."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        names = names or [f"c{i}" for i in range(len(rows[0]))]
        columns = zip(*rows, strict=True)
        parquet.write_table(pyarrow.table(dict(zip(names, map(list, columns), strict=True))), path)
        return path
    out = io.StringIO()
    if kind == "csv":
        csv.writer(out).writerows([names, *rows] if names else rows)
    elif kind == "tsv":
        out.writelines("\t".join(map(str, row)) + "\n" for row in ([names] if names else []) + rows)
    else:
        records = [dict(zip(names, row, strict=True)) for row in rows] if names else rows
        out.writelines(json.dumps(record) + "\n" for record in records)
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def read(tmp_path):
    def write_and_read(name, text, **options):
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return read_examples(path, **options)

    return write_and_read


# Every format, with and without names, for every reader.


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_is_unsupervised(read, name):
    assert read(name, "a\n\nb\n") == [Example("a"), Example("b")]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("names", [None, ["sent0", "sent1", "hard_neg"], ["eins", "zwei", "drei"]])
@pytest.mark.parametrize("columns", ["", "1,2,3"])
def test_triplets(tmp_path, name, names, columns):
    path = write_table(tmp_path / name, names, [ROW, ROW])
    assert read_examples(path, columns=columns) == [TRIPLET, TRIPLET]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("columns", ["frage,antwort", "positive=antwort,anchor=frage", "3,2"])
def test_columns_by_name_role_and_position(tmp_path, name, columns):
    path = write_table(
        tmp_path / name, ["jahr", "antwort", "frage"], [["2020", "An answer.", "A question here?"]]
    )
    assert read_examples(path, columns=columns) == [Example("A question here?", "An answer.")]
    assert read_pairs(path, columns=columns) == [("A question here?", "An answer.")]
    with pytest.raises(DataError, match=r"no column 'antwrt', .*\. Did you mean 'antwort'\?"):
        read_examples(path, columns=columns.replace("antwort", "antwrt").replace("2", "antwrt"))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("names", [None, ["gold_label", "sentence1", "sentence2"]])
def test_labeled_rows(tmp_path, name, names):
    path = write_table(tmp_path / name, names, [["neutral", *ROW[:2]], ["entailment", *ROW[:2]]])
    rows = read_examples(path, labeled=True)
    assert [row.label for row in rows] == ["neutral", "entailment"]
    assert rows[0].pair == tuple(ROW[:2])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("names", [None, ["label", "first", "second"]])
def test_scored_pairs(tmp_path, name, names):
    path = write_table(tmp_path / name, names, [[1, *ROW[:2]], [0, *ROW[:2]]])
    assert read_scored_pairs(path) == [(*ROW[:2], 1), (*ROW[:2], 0)]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("names", "columns"),
    [(None, ""), (None, "2"), (["id", "text"], ""), (["id", "note"], ""), (["id", "x"], "x")],
)
def test_texts_and_index_rows(tmp_path, name, names, columns):
    path = write_table(tmp_path / name, names, [["17", "A text of words."], ["18", "Another one."]])
    assert list(read_texts(path, columns=columns)) == ["A text of words.", "Another one."]
    rows = list(read_index_rows(path, columns=columns))
    assert [row.text for row in rows] == ["A text of words.", "Another one."]
    if names:
        assert [(row.id, row.metadata) for row in rows] == [("17", {}), ("18", {})]
    else:
        assert list(rows[0].metadata.values()) == ["17"]


@pytest.mark.parametrize("name", FORMATS)
def test_other_columns_of_an_index_row_are_metadata(tmp_path, name):
    names = ["ticket", "question", "lang"]
    path = write_table(tmp_path / name, names, [["T-1", "Why is that so?", "en"]])
    for columns in ("text=question,id=ticket", "question,ticket", "2,1"):
        (row,) = read_index_rows(path, columns=columns)
        assert (row.id, row.text, row.metadata) == ("T-1", "Why is that so?", {"lang": "en"})


@pytest.mark.parametrize("name", ["a.txt", *FORMATS])
@pytest.mark.parametrize("reader", [read_examples, read_texts, read_index_rows])
def test_each_input_is_opened_once(tmp_path, monkeypatch, name, reader):
    path = tmp_path / name
    if name == "a.txt":
        path.write_text("A text of words.\n")
    else:
        write_table(path, ["id", "text"], [["17", "A text of words."]])
    opened, plain = [], Path.open

    def count(self, *arguments):
        opened.append(self)
        return plain(self, *arguments)

    monkeypatch.setattr(Path, "open", count)
    assert len(list(reader(path))) == 1
    assert opened == ([] if name == "a.parquet" else [path])  # pyarrow opens its file itself


# What was decided is reported.


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("support.csv", "ticket_id,question,answer,year\nT-1,How do I do it?,Like this.,2020\n",
         "header found; anchor=question, positive=answer; ignored: ticket_id, year"),
        ("nli.tsv", "A b c.\tD e f.\tG h i.\n",
         "no header; anchor=column 1, positive=column 2, negative=column 3"),
        ("a.jsonl", '{"query": "A b", "document": "D e f", "id": 1}\n',
         "anchor=query, positive=document; ignored: id"),
        ("zh.csv", "问题,答案\n怎么重置密码?,点击链接。\n",
         "header found; anchor=问题, positive=答案"),
        ("zh.csv", "客户问题,回复内容\n如何重置我的账户密码?,请点击忘记密码的链接。\n",
         "header found; anchor=客户问题, positive=回复内容"),
        ("p.csv", ",query,positive,negative_1,negative_2\n0,A b,C d,E f,G h\n",
         "header found; anchor=query, positive=positive, negative=negative_1, "
         "negative=negative_2; ignored: (unnamed)"),
    ],
)  # fmt: skip
def test_the_decision_is_one_line(read, tmp_path, name, text, expected):
    notes = []
    read(name, text, note=notes.append)
    assert notes == [f"{tmp_path / name}: {expected}"]


def test_text_needs_no_note(read):
    notes = []
    read("a.txt", "a\n", note=notes.append)
    assert notes == []


# The header rule.


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("question\tanswer", True),
        ("Customer message\tAgent reply", True),
        ("A man eats.\tSomeone eats food.", False),
        ("entailment\tneutral", False),
        ("12\t13", False),
        ("same\tsame", False),
        ("short name\t" + "long " * 9, False),
        ("word one two three\tname", False),
    ],
)
def test_a_header_has_short_distinct_names_that_are_no_sentences(read, first, header):
    rows = read("a.tsv", f"{first}\nA man eats food.\tSomebody does eat.\n", columns="1,2")
    assert len(rows) == (1 if header else 2)


def test_words_above_words_are_a_header_only_with_a_known_name(read):
    assert len(read("a.tsv", "cat\tdog\nred\tblue\n")) == 2
    assert read("a.tsv", "query\tdog\nred\tblue\n", columns="1,2") == [Example("red", "blue")]


def test_a_column_of_words_has_a_header_only_by_a_known_name(read):
    assert list(read("a.csv", "text\nred\n")) == [Example("red")]
    assert len(read("a.csv", "heading\nA long sentence stands here.\n", columns="1")) == 2


def test_named_columns_need_a_header(read):
    with pytest.raises(DataError, match=r"a.csv:1: expected a header with x, y, found A man eats."):
        read("a.csv", "A man eats.,Some one does.\n", columns=["x", "y"])
    with pytest.raises(DataError, match="has the column 'sent0' twice"):
        read("a.csv", "sent0,sent0,sent1\n1,2,3\n", columns="sent0,sent1")


def test_the_header_line_is_counted_for_copies(tmp_path):
    counts = ReadCounts()
    (tmp_path / "a.csv").write_text("\nsent0,sent1\na b,c d\n")
    read_examples(tmp_path / "a.csv", counts=counts)
    assert (counts.header, counts.rows, counts.blank) == (2, 1, 1)


# Doubts stop with exit code 3 and name the columns.


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("a.tsv", "A b c\tD e f\tG h i\tJ k l\n", "found 4: column 1 .text., .*--columns"),
        ("a.csv", "nr,frage,antwort\n1,Was ist das hier?,Ein Test.\n", r"nr \(numbers\), frage"),
        ("a.csv", "nr,frage,antwort\nT-1,Was ist das hier?,Ein Test.\n", r"nr \(ids\), frage"),
        ("a.tsv", "1\tA man eats.\tSomeone eats.\n0\tA b c.\tD e.\n", r"column 1 \(numbers\)"),
        ("a.tsv", "A man eats.\tSomeone eats.\t0.25\n", r"column 3 \(numbers\)"),
        ("a.tsv", "entailment\tA man eats.\tSomeone eats.\n", r"column 1 \(NLI labels\)"),
        ("a.tsv", "MSRpar\t5.0\tA man eats.\tSomeone eats.\n" * 4, r"\(labels\), column 2 \(numb"),
        ("a.csv", "sentence1,sentence2,score\nA man eats.,Someone eats.,5\n", "with 'score'"),
        ("a.csv", "premise,hypothesis,label\nA b.,C d.,neutral\n", "'label' are not all"),
        ("a.tsv", "alone here\n", "expected 2 or more columns"),
        ("a.jsonl", '{"a": 1, "b": "A text of it"}\n', r"a \(numbers\), b \(text\)"),
        ("a.jsonl", '{"a": "x y z", "b": "x y", "c": "x y", "d": "x y"}\n', "found 4: a .text., b"),
        ("a.jsonl", '["alone here"]\n', "expected 2 or more columns"),
        ("a.jsonl", "[]\n", "expected columns; found 0"),
    ],
)  # fmt: skip
def test_d14_doubts_ask_for_columns(read, name, text, seen):
    with pytest.raises(DataError, match=seen) as error:
        read(name, text, bad_lines="skip")
    assert error.value.exit_code == 3
    assert "data.columns" in str(error.value)


def test_d14_columns_settle_a_doubt(read):
    rows = read("a.tsv", "1\tA man eats.\tSomeone eats.\n", columns="2,3")
    assert rows == [Example("A man eats.", "Someone eats.")]
    assert read("a.tsv", "alone here\n", columns="1") == [Example("alone here")]
    text = "sentence1,sentence2,score\nA man eats.,Someone eats.,5\n"
    assert read("a.csv", text, columns="sentence1,sentence2")[0].positive == "Someone eats."


def test_d14_several_texts_are_a_doubt_for_encoding(tmp_path):
    path = write_table(tmp_path / "a.csv", ["title", "story"], [["The end", "It was so long."]])
    with pytest.raises(DataError, match=r"expected one column of text; found 2: .*such as title"):
        read_texts(path)
    with pytest.raises(DataError, match="expected one column of text"):
        list(read_index_rows(path))
    assert list(read_texts(path, columns="story")) == ["It was so long."]
    numbers = write_table(tmp_path / "b.csv", None, [["17"], ["18"]])
    with pytest.raises(DataError, match=r"found 1: column 1 \(numbers\)"):
        read_texts(numbers)
    assert list(read_texts(numbers, columns="1")) == ["17", "18"]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("0,1", "names or numbers from 1"),
        ("a,,b", "names or numbers from 1"),
        ("anchr=1", "Did you mean 'anchor'"),
        ("anchor=1,2", "expected role=column"),
        ("positive=1", "no column for anchor"),
        ("anchor=1,negative=2", "no column for positive"),
        ("anchor=1,anchor=2", "two columns for anchor"),
    ],
)
def test_malformed_columns_are_a_usage_error(read, columns, problem):
    with pytest.raises(ConfigError, match=problem) as error:
        read("a.tsv", "a\tb\n", columns=columns)
    assert error.value.exit_code == 2


def test_too_many_columns_for_the_reader(tmp_path):
    with pytest.raises(ConfigError, match="expected columns for text, found 'a,b'"):
        read_texts(write_table(tmp_path / "a.csv", ["a", "b"], [["x y", "z"]]), columns="a,b")


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl", "a.parquet"])
def test_a_column_that_is_not_there_is_named(tmp_path, name):
    names = None if name == "a.tsv" else ["anchor", "positive"]
    path = write_table(tmp_path / name, names, [["a b.", "c d."]])
    with pytest.raises(DataError, match="no column '3', the file has: "):
        read_examples(path, columns="1,2,3")
    with pytest.raises(DataError, match=r"header with|no column 'hard_neg'"):
        read_examples(path, columns="anchor,positive,hard_neg")


def test_a_text_file_has_one_column(read):
    assert read("a.txt", "a\n", columns="text") == read("a.txt", "a\n", columns="1")
    with pytest.raises(DataError, match=r"a.txt: a .txt file has one column, text"):
        read("a.txt", "a\n", columns="question,answer")


# Rows.


def test_parquet_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    columns = {"anchor": ["a", "b"], "positive": ["p", None], "negatives": [["n"], []]}
    parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(DataError, match=r"a.parquet:2: the positive is empty or missing"):
        read_examples(path)
    assert read_examples(path, bad_lines="skip") == [Example("a", "p", ("n",))]
    assert read_examples(path, columns=["anchor"]) == [Example("a"), Example("b")]
    path.write_text("not parquet")
    with pytest.raises(DataError, match="cannot read"):
        read_texts(path)


def test_parquet_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ResourceError, match=r"pip install 'simcse-next\[parquet\]'"):
        read_texts(tmp_path / "a.parquet")


def test_several_files_keep_their_order(tmp_path):
    (tmp_path / "b.txt").write_text("b\n")
    (tmp_path / "a.tsv").write_text("a\tp\n")
    counts = ReadCounts()
    paths = [tmp_path / "b.txt", str(tmp_path / "a.tsv")]
    assert read_examples(paths, counts=counts) == [Example("b"), Example("a", "p")]
    assert counts == ReadCounts(rows=2)


def test_a_limit_reads_no_further_than_it_must(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.tsv"
    first.write_text("one\ntwo\n")
    second.write_bytes(b"three\tfour\n\xff\n")
    rows = read_examples([first, second], limit=3)
    assert [row.anchor for row in rows] == ["one", "two", "three"]
    with pytest.raises(DataError, match=f"{second}:2"):
        read_examples([first, second], limit=4)


def test_rows_may_differ_in_hard_negatives(read):
    expected = [Example("a", "p"), Example("b", "q", ("n", "m")), Example("c", "r")]
    assert read("a.tsv", "a\tp\nb\tq\tn\tm\nc\tr\t\t\n", columns="1,2,3,4") == expected
    assert read("a.jsonl", '["a", "p"]\n["b", "q", "n"]\n')[1] == Example("b", "q", ("n",))
    lists = '{"anchor": "a", "positive": "p", "negatives": ["n", "m"]}\n'
    assert read("a.jsonl", lists) == [Example("a", "p", ("n", "m"))]


def test_tsv_has_no_quoting(read):
    assert read("a.tsv", '"a\tp"\n') == [Example('"a', 'p"')]


def test_csv_cells_may_hold_commas_quotes_and_lines(read):
    assert read("a.csv", '"a, ""b""","p\nq"\n') == [Example('a, "b"', "p q")]


@pytest.mark.parametrize(
    ("name", "text", "columns", "problem"),
    [
        ("a.tsv", "a\tp\nalone\n", "", r"a.tsv:2: the positive is empty or missing"),
        ("a.tsv", "a\tp\n\n\tp\n", "", r"a.tsv:3: the anchor is empty"),
        ("a.csv", "a,p\nb,\n", "", r"a.csv:2: the positive is empty"),
        ("a.csv", "sent0,sent1\na,p\nb\n", "sent0,sent1", r"a.csv:3: the positive is .*missing"),
        ("a.csv", "sent0,sent1\na,p\nb,q,r\n", "sent0,sent1", r"a.csv:3: expected 2 .* found 3"),
        ("a.tsv", "x y\tz w\n" * 101 + "a\tb\tc\td\n", "", r"a.tsv:102: expected 2 columns"),
        ("a.jsonl", '{"anchor": "a", "positive": "p"}\n{"anchor": "a"}\n', "",
         r"a.jsonl:2: the positive is empty or missing"),
        ("a.jsonl", '["a", "p"]\n["a", 1]\n', "1,2", r"a.jsonl:2: expected text"),
        ("a.jsonl", '["a", "p"]\n["a"]\n', "", r"a.jsonl:2: the positive is empty or missing"),
        ("a.jsonl", '["a", "p"]\n{"anchor": "a"}\n', "", r"a.jsonl:2: expected a list of strings"),
        ("a.jsonl", '{"anchor": "a", "positive": "p"}\n{"anchor": "a", "positive": ["p"]}\n', "",
         r"a.jsonl:2: expected"),
    ],
)  # fmt: skip
def test_d6_bad_rows_name_the_physical_line(read, name, text, columns, problem):
    with pytest.raises(DataError, match=problem) as error:
        read(name, text, columns=columns)
    assert error.value.exit_code == 3
    counts = ReadCounts()
    good = len(read(name, text, columns=columns, bad_lines="skip", counts=counts))
    assert good == (101 if "102" in problem else 1)
    assert counts.skipped == 1


def test_d6_lines_inside_quotes_are_counted(read):
    with pytest.raises(DataError, match=r"a.csv:5: the positive"):
        read("a.csv", 'a,"p\n\nq"\nb,q\nc,\n')


def test_d6_an_open_quote_names_where_it_opened(read):
    with pytest.raises(DataError, match=r"a.csv:2: bad CSV record, is a quote left open"):
        read("a.csv", 'a,p\nb,"q\nc,r\nd,s\n')
    with pytest.raises(DataError, match=r"a.csv:2: bad CSV record"):
        read("a.csv", 'a,p\nb,"q\nc,"r"\nd,s\n')
    assert read("a.csv", 'a,p\nb,"q\nc,r\n', bad_lines="skip") == [Example("a", "p")]


def test_d1_a_bad_byte_spoils_its_whole_csv_record(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,p\nb,"q\n\xff\nr"\nc,s\n')
    with pytest.raises(DataError, match=r"a.csv:3:1:"):
        read_examples(path)
    assert read_examples(path, bad_lines="skip") == [Example("a", "p"), Example("c", "s")]


@pytest.mark.parametrize(
    ("encoding", "guess"),
    [("gb18030", "GB18030"), ("utf-16", "UTF-16"), ("cp1252", "Windows-1252")],
)
def test_d16_another_encoding_is_hinted_at(tmp_path, encoding, guess):
    text = "Déjà vu, où ça ?\n" if encoding == "cp1252" else "如何重置我的密码\n"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=rf"a.txt:1:\d+: .*by `iconv -f {guess} -t UTF-8`"):
        read_texts(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_d2_byte_order_mark_and_crlf(read, name):
    comma = "," if name == "a.csv" else "\t"
    text = f"\ufeffanchor{comma}positive\r\na{comma}p\r\n"
    assert read(name, text) == read(name, text, columns="anchor,positive") == [Example("a", "p")]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_d3_unicode_line_separators(read, name):
    comma = "," if name == "a.csv" else "\t"
    text = f"a\u2028b{comma}p\u0085q\u2029r\n"
    assert read(name, text) == [Example("a\u2028b", "p\u0085q\u2029r")]


def test_d4_blank_rows_are_counted(read, tmp_path):
    counts = ReadCounts()
    read("a.csv", "\na,p\n,\n  \nb,q\n", counts=counts)
    assert counts == ReadCounts(rows=2, blank=3)
    counts, path = ReadCounts(), tmp_path / "a.txt"
    path.write_bytes(b"\n \n\x00\none\n\n\xff\n")
    assert list(read_texts(path, bad_lines="skip", counts=counts)) == ["one"]
    assert counts == ReadCounts(rows=1, blank=4, skipped=1)
    with pytest.raises(DataError, match=r"a.txt:6:1:"):
        list(read_texts(path))


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_d7_nul_is_a_space(read, name):
    comma = "," if name == "a.csv" else "\t"
    assert read(name, f"a\0b{comma}p\x07\n") == [Example("a b", "p")]


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.csv", "a.jsonl"])
def test_d8_no_usable_rows(read, name):
    with pytest.raises(DataError, match=r"no usable rows \(0 rows, 2 blank"):
        read(name, "\n \n")
    with pytest.raises(DataError, match="no usable rows"):
        read(name, "")


@pytest.mark.parametrize("data", [b"", b"\n \n\x00\n"])
def test_d8_no_usable_rows_fails_at_the_call(tmp_path, data):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match="no usable rows"):
        read_texts(path)


def test_missing_file_fails_at_the_call(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_texts(tmp_path / "none.txt")


@pytest.mark.parametrize("reader", [read_examples, read_texts, lambda p: list(read_index_rows(p))])
def test_unknown_format_names_the_known_ones(tmp_path, reader):
    (tmp_path / "a.dat").write_text("a\n")
    with pytest.raises(DataError, match=r"expected \.txt, \.tsv, .* found the format 'dat'"):
        reader(tmp_path / "a.dat")


def test_records_without_the_field_are_rejected(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": 1}\n["text"]\n{"text": "fine"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:1: expected text, found"):
        read_texts(path)
    assert list(read_texts(path, bad_lines="skip")) == ["fine"]


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\r\n\ntwo")))
    assert list(read_texts("-")) == ["one", "two"]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.tsv.gz", "a.csv.gz", "a.jsonl.gz"])
def test_memory_stays_constant(tmp_path, name):
    path, rows = tmp_path / name, [["A sentence of some length.", "17"]] * 30_000
    if name == "a.txt.gz":
        path.write_bytes(gzip.compress(b"A sentence of some length.\n" * 30_000))
    else:
        write_table(path, ["text", "id"], rows)
    tracemalloc.start()
    assert sum(1 for _ in read_texts(path)) == 30_000
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


sentences = (
    st.text(min_size=1)
    .map(clean_text)
    .filter(lambda text: text and "\ufeff" not in text and text.isprintable())
)
examples = st.lists(
    st.builds(Example, sentences, sentences, st.lists(sentences, max_size=3).map(tuple)), min_size=1
)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
@given(expected=examples)
def test_round_trip(tmp_path_factory, name, expected):
    rows = [[example.anchor, example.positive, *example.negatives] for example in expected]
    width = max(map(len, rows))
    header = ["anchor", "positive", "negative1", "negative2", "negative3"][:width]
    rows = [[*row, *[""] * (width - len(row))] for row in rows]
    path = write_table(tmp_path_factory.mktemp("examples") / name, header, rows)
    assert read_examples(path) == expected


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.tsv", "1\tone\n", r"expected the columns label, s1, s2; found 2"),
        ("a.tsv", "1\ta\tb\n2\ta\tb\n", "a.tsv:2: expected a label 0 or 1 and two sentences"),
        ("a.tsv", "1\ta\t \n", "a.tsv:1: a sentence is missing or blank"),
        ("a.tsv", "", "no pairs"),
        ("a.jsonl", '{"label": true, "first": "a", "second": "b"}', "a.jsonl:1: expected a label"),
        ("a.jsonl", "[]", "expected columns"),
        ("a.txt", "a\n", "expected a table of label, s1, s2"),
    ],
)
def test_wrong_scored_pairs_are_named(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=problem):
        read_scored_pairs(tmp_path / name)


def test_a_pair_needs_a_positive(read, tmp_path):
    (triplet,) = read("a.tsv", "a\tp\tn\n")
    assert triplet.pair == ("a", "p")
    assert triplet.texts == ["a", "p", "n"]
    _, alone = read("b.txt", "first\nsecond\n")
    with pytest.raises(DataError, match=r"b\.txt:2: expected pairs, found one sentence"):
        _ = alone.pair
    with pytest.raises(DataError, match=r"b\.txt:1: expected pairs, found one sentence"):
        read_pairs(tmp_path / "b.txt")


@pytest.mark.data
@pytest.mark.skipif(not (data_folder() / "nli").is_dir(), reason="no data folder")
def test_real_triplets_and_labeled_pairs():
    folder = data_folder() / "nli"
    triplets = read_examples(folder / "triplets.tsv")
    assert len(triplets) == 53_546
    assert all(len(example.negatives) == 1 for example in triplets)
    assert len(read_examples(folder / "nli_labelled.tsv.gz", columns="2,3")) == 199_590
    assert len(read_examples(folder / "nli_labelled.tsv.gz", labeled=True)) == 199_590
    with pytest.raises(DataError, match="labels"):
        read_examples(folder / "nli_labelled.tsv.gz")


@pytest.mark.data
@pytest.mark.skipif(not (data_folder() / "sts").is_dir(), reason="no data folder")
def test_d14_real_sts_files_are_no_training_data():
    for path in (data_folder() / "sts").glob("*.tsv"):
        with pytest.raises(DataError, match="numbers"):
            read_examples(path)
