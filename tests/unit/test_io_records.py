"""The one reader: every format and role, the header rule, doubts, bad rows by physical line."""

import gzip
import io
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse.errors import DataError, ResourceError
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
from tables import FORMATS, write_table

TRIPLET = Example("a b c d.", "p q r s.", ("n m o l.",))
ROW = ["a b c d.", "p q r s.", "n m o l."]

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
